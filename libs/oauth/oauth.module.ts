import { Module } from '@nestjs/common';
import { RatesModule } from '@longhaul/access';
import { PersistenceModule } from '@longhaul/persistence';
import { SecretsModule } from '@longhaul/secrets';
import { Oauth } from './oauth.js';

@Module({ imports: [PersistenceModule, RatesModule, SecretsModule], providers: [Oauth], exports: [Oauth] })
export class OauthModule {}
