import { createHash } from 'node:crypto';
import {
  Artifacts,
  ContentUrls,
  DiskStore,
  artifactsConfig,
  type ArtifactStore,
  type ArtifactsConfig,
} from '@longhaul/artifacts';
import { newId, type Artifact, type Vm } from '@longhaul/persistence';
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
  const secrets = new StoredSecrets(db, new Secrets({ SECRETS_KEYS: TEST_SECRETS_KEYS }));
  const urls = new ContentUrls(secrets, db);
  const store = new DiskStore(directory, urls);
  const config = { ...artifactsConfig.parse({}), LONGHAUL_HOME: directory, ...values };
  return { artifacts: withStore({ db, audit }, store, config), store, urls };
}

export const withStore = (
  { db, audit }: Pick<TestDatabase, 'db' | 'audit'>,
  store: ArtifactStore,
  config: ArtifactsConfig,
) => new Artifacts(db, audit, store, config);

/** A row of one that has been uploaded, unless `values` say otherwise; no bytes are behind it. */
export function makeArtifact(
  { db }: Pick<TestDatabase, 'db'>,
  { id: vmId, projectId }: Vm,
  userId: string,
  values: Partial<Artifact> = {},
): Promise<Artifact> {
  const expiresAt = new Date(Date.now() + 3_600_000);
  return db.artifact.create({
    data: {
      id: newId(),
      projectId,
      vmId,
      userId,
      filename: 'app.conf',
      purpose: 'config',
      sizeBytes: 4n,
      sha256: createHash('sha256').update('text').digest(),
      uploadUntil: expiresAt,
      uploadedAt: new Date(),
      expiresAt,
      ...values,
    },
  });
}
