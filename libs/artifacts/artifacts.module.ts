import { join } from 'node:path';
import { Module } from '@nestjs/common';
import { AuditModule } from '@longhaul/audit';
import { CONFIG } from '@longhaul/config';
import { PersistenceModule } from '@longhaul/persistence';
import { SecretsModule } from '@longhaul/secrets';
import { Artifacts } from './artifacts.js';
import type { ArtifactsConfig } from './config.js';
import { ContentUrls } from './content-urls.js';
import { DiskStore } from './disk-store.js';
import { ArtifactStore, LogStore } from './store.js';

/** Errors: ConfigError when the bucket or half of the credentials is missing. */
async function openStore(
  config: ArtifactsConfig,
  urls: ContentUrls,
  folder: 'artifacts' | 'logs',
): Promise<ArtifactStore> {
  const { ARTIFACTS_STORE, ARTIFACTS_DIRECTORY, ARTIFACTS_GUEST_URL, LONGHAUL_HOME } = config;
  if (ARTIFACTS_STORE === 'disk') {
    const directory = ARTIFACTS_DIRECTORY ?? join(LONGHAUL_HOME, 'artifacts');
    return new DiskStore(folder === 'logs' ? join(directory, folder) : directory, urls, ARTIFACTS_GUEST_URL);
  }
  // The SDK is large: only those who use it load it.
  const { S3Store } = await import('./s3-store.js');
  return S3Store.open(config, urls, folder);
}

@Module({
  imports: [PersistenceModule, AuditModule, SecretsModule],
  providers: [
    ContentUrls,
    {
      provide: ArtifactStore,
      inject: [CONFIG, ContentUrls],
      useFactory: (config: ArtifactsConfig, urls: ContentUrls) => openStore(config, urls, 'artifacts'),
    },
    {
      provide: LogStore,
      inject: [CONFIG, ContentUrls],
      useFactory: (config: ArtifactsConfig, urls: ContentUrls) => openStore(config, urls, 'logs'),
    },
    Artifacts,
  ],
  exports: [ContentUrls, ArtifactStore, LogStore, Artifacts],
})
export class ArtifactsModule {}
