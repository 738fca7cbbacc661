import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { testArtifacts } from '../../test/support/artifacts.js';
import { testDatabase } from '../../test/support/database.js';
import { startTestApi } from '../../test/support/mcp.js';
import { storeContract } from './store.contract.js';

// Uploads to it and downloads from it go through the API, on the same folder.
storeContract('DiskStore', async () => {
  const database = await testDatabase();
  const directory = mkdtempSync(join(tmpdir(), 'artifacts-'));
  const api = await startTestApi(database.url, { ARTIFACTS_DIRECTORY: directory });
  const { artifacts, urls } = testArtifacts(database, directory);
  urls.origin = `http://127.0.0.1:${api.port}`;
  return {
    database,
    artifacts,
    gateway: urls.origin,
    refuses: { digest: true, second: true },
    async close() {
      await api.close();
      await database.drop();
      rmSync(directory, { recursive: true, force: true });
    },
  };
});
