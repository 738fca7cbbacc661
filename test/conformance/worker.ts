// The worker of the test build.
import 'reflect-metadata';
import { parseConfig } from '@longhaul/config';
import { handlers } from '@longhaul/toolsets/handlers';
import { workerConfig } from '../../apps/worker/config.js';
import { startWorker } from '../../apps/worker/start.js';
import { fixtureHandlers } from './fixtures/handlers.js';

await startWorker(parseConfig(workerConfig), [...handlers, ...fixtureHandlers]);
