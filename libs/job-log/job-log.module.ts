import { Module } from '@nestjs/common';
import { PersistenceModule } from '@longhaul/persistence';
import { JobLog } from './job-log.js';
import { LogGrowth } from './log-growth.js';

@Module({ imports: [PersistenceModule], providers: [JobLog, LogGrowth], exports: [JobLog, LogGrowth] })
export class JobLogModule {}
