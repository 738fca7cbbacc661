import { Module } from '@nestjs/common';
import { PersistenceModule } from '@longhaul/persistence';
import { JobLog } from './job-log.js';

@Module({ imports: [PersistenceModule], providers: [JobLog], exports: [JobLog] })
export class JobLogModule {}
