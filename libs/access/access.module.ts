import { Module } from '@nestjs/common';
import { PersistenceModule } from '@longhaul/persistence';
import { Access } from './access.js';

@Module({ imports: [PersistenceModule], providers: [Access], exports: [Access] })
export class AccessModule {}
