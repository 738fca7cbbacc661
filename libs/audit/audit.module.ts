import { Module } from '@nestjs/common';
import { PersistenceModule } from '@longhaul/persistence';
import { Audit } from './audit.js';

@Module({ imports: [PersistenceModule], providers: [Audit], exports: [Audit] })
export class AuditModule {}
