import { Module } from '@nestjs/common';
import { PersistenceModule } from '@longhaul/persistence';
import { SecretsModule } from '@longhaul/secrets';
import { Oauth } from './oauth.js';

@Module({ imports: [PersistenceModule, SecretsModule], providers: [Oauth], exports: [Oauth] })
export class OauthModule {}
