import { SWIFT_LACKS, startSwift, swiftEnv, type Swift } from '../../test/support/swift.js';
import { testArtifacts, withStore } from '../../test/support/artifacts.js';
import { testDatabase } from '../../test/support/database.js';
import { artifactsConfig, type ArtifactsConfig } from './config.js';
import { S3Store } from './s3-store.js';
import { storeContract } from './store.contract.js';

if (SWIFT_LACKS) it.skip(`not tested here: ${SWIFT_LACKS}`, () => {});
else {
  // Swift signs and compares length and type. It knows no checksum of SHA-256 and refuses conditional uploads.
  storeContract('S3Store on Swift', async () => {
    const [database, swift] = await Promise.all([testDatabase(), startSwift()]);
    const { urls } = testArtifacts(database, '/nowhere');
    const config = configOf(swift);
    return {
      database,
      artifacts: withStore(database, S3Store.open(config, urls), config),
      refuses: { digest: false, second: false },
      async close() {
        await swift.stop();
        await database.drop();
      },
    };
  });
}

function configOf(swift: Swift): ArtifactsConfig {
  return { ...artifactsConfig.parse(swiftEnv(swift)), LONGHAUL_HOME: '/nowhere' };
}
