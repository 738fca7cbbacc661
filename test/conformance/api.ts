// The API of the test build.
import 'reflect-metadata';
import { parseConfig } from '@longhaul/config';
import { apiConfig } from '../../apps/api/config.js';
import { startServer } from '../../apps/api/server.js';
import { catalog } from './fixtures/catalog.js';

const server = await startServer(parseConfig(apiConfig), catalog);
for (const event of ['SIGTERM', 'SIGINT', 'disconnect']) {
  process.once(event, () => void server.close().finally(() => process.exit(0)));
}
process.send?.({ port: server.port });
