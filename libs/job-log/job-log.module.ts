import { Module } from '@nestjs/common';
import { ArtifactsModule } from '@longhaul/artifacts';
import { PersistenceModule } from '@longhaul/persistence';
import { LogArchive } from './archive.js';
import { JobLog } from './job-log.js';
import { LogGrowth } from './log-growth.js';

@Module({
  imports: [PersistenceModule, ArtifactsModule],
  providers: [LogArchive, JobLog, LogGrowth],
  exports: [LogArchive, JobLog, LogGrowth],
})
export class JobLogModule {}
