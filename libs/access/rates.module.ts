import { Module } from '@nestjs/common';
import { PersistenceModule } from '@longhaul/persistence';
import { Rates } from './rates.js';

@Module({ imports: [PersistenceModule], providers: [Rates], exports: [Rates] })
export class RatesModule {}
