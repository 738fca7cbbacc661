import {
  Artifacts,
  ContentUrls,
  DiskStore,
  artifactsConfig,
  type ArtifactsConfig,
} from '@longhaul/artifacts';
import { Secrets, StoredSecrets } from '@longhaul/secrets';
import { TEST_SECRETS_KEYS, type TestDatabase } from './database.js';

export interface TestArtifacts {
  artifacts: Artifacts;
  store: DiskStore;
  urls: ContentUrls;
}

/** Artifacts in a folder of the test's own, which is made when something is stored. */
export function testArtifacts(
  { db, audit }: Pick<TestDatabase, 'db' | 'audit'>,
  directory: string,
  values: Partial<ArtifactsConfig> = {},
): TestArtifacts {
  const urls = new ContentUrls(new StoredSecrets(db, new Secrets({ SECRETS_KEYS: TEST_SECRETS_KEYS })));
  const store = new DiskStore(directory, urls);
  const config = { ...artifactsConfig.parse({}), LONGHAUL_HOME: directory, ...values };
  return { artifacts: new Artifacts(db, audit, store, config), store, urls };
}
