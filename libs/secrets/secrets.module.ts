import { Module } from '@nestjs/common';
import { PersistenceModule } from '@longhaul/persistence';
import { Secrets } from './secrets.js';
import { StoredSecrets } from './stored.js';

@Module({
  imports: [PersistenceModule],
  providers: [Secrets, StoredSecrets],
  exports: [Secrets, StoredSecrets],
})
export class SecretsModule {}
