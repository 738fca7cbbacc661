import { Module, type DynamicModule } from '@nestjs/common';
import { ArtifactsModule } from '@longhaul/artifacts';
import { ConfigModule } from '@longhaul/config';
import { JobLogModule } from '@longhaul/job-log';
import { JobConsumer, JobConsumerModule, JobQueueModule } from '@longhaul/job-queue';
import { JobsModule, queueName } from '@longhaul/jobs';
import { PersistenceModule } from '@longhaul/persistence';
import { SecretsModule } from '@longhaul/secrets';
import { Handlers, type JobHandler } from '@longhaul/toolsets/handler';
import type { WorkerConfig } from './config.js';
import { Housekeeping } from './housekeeping.js';
import { JobRunner } from './job-runner.js';
import { Observer } from './observer.js';
import { VmProviders } from './vm-providers.js';

@Module({
  imports: [
    PersistenceModule,
    ArtifactsModule,
    JobsModule.forWorkers(JobQueueModule),
    JobLogModule,
    SecretsModule,
  ],
  providers: [
    JobRunner,
    VmProviders,
    Observer,
    Housekeeping,
    { provide: JobConsumer, useExisting: JobRunner },
  ],
  exports: [JobConsumer],
})
class RunnerModule {
  static with(handlers: Handlers): DynamicModule {
    return { module: RunnerModule, providers: [{ provide: Handlers, useValue: handlers }] };
  }
}

@Module({})
export class WorkerModule {
  static with(config: WorkerConfig, handlers: readonly JobHandler[]): DynamicModule {
    const lanes = [...config.WORKER_HOSTS, null].flatMap((host) => [
      { queue: queueName('interactive', host), concurrency: config.WORKER_INTERACTIVE_JOBS },
      { queue: queueName('bulk', host), concurrency: config.WORKER_BULK_JOBS },
    ]);
    return {
      module: WorkerModule,
      imports: [
        ConfigModule.forRoot(config),
        JobConsumerModule.forLanes(lanes, RunnerModule.with(new Handlers(handlers))),
      ],
    };
  }
}
