import { Module, type DynamicModule } from '@nestjs/common';
import { ArtifactStore, ArtifactsModule } from '@longhaul/artifacts';
import { CONFIG, ConfigModule } from '@longhaul/config';
import { JobLogModule } from '@longhaul/job-log';
import { JobConsumer, JobConsumerModule, JobQueueModule } from '@longhaul/job-queue';
import { JobDelivery, JobsModule, queueName } from '@longhaul/jobs';
import { Database, PersistenceModule } from '@longhaul/persistence';
import { SecretsModule } from '@longhaul/secrets';
import { HealthServer, Readiness, Tracing } from '@longhaul/telemetry';
import { Handlers, type JobHandler } from '@longhaul/toolsets/handler';
import type { WorkerConfig } from './config.js';
import { Housekeeping } from './housekeeping.js';
import { JobRunner } from './job-runner.js';
import { Observer } from './observer.js';
import { SystemJobs } from './system-jobs.js';
import { VmProviders } from './vm-providers.js';

@Module({
  imports: [
    PersistenceModule,
    ArtifactsModule,
    JobQueueModule,
    JobsModule.forWorkers(JobQueueModule),
    JobLogModule,
    SecretsModule,
  ],
  providers: [
    JobRunner,
    VmProviders,
    Observer,
    SystemJobs,
    Housekeeping,
    { provide: JobConsumer, useExisting: JobRunner },
    {
      provide: Readiness,
      inject: [Database, JobDelivery, ArtifactStore, VmProviders],
      useFactory: (db: Database, queue: JobDelivery, store: ArtifactStore, providers: VmProviders) =>
        new Readiness({
          database: () => db.$queryRaw`SELECT 1`,
          queue: () => queue.ping(),
          artifacts: (signal) => store.check(signal),
          ...providers.checks,
        }),
    },
    {
      provide: Tracing,
      inject: [CONFIG],
      useFactory: (config: WorkerConfig) => Tracing.start(config, 'longhaul-worker'),
    },
    {
      provide: HealthServer,
      inject: [CONFIG, Readiness, Database],
      useFactory: (config: WorkerConfig, readiness: Readiness, db: Database) =>
        new HealthServer(readiness, {
          host: config.METRICS_HOST,
          port: config.WORKER_HEALTH_PORT,
          variable: 'WORKER_HEALTH_PORT',
          collect: async () => db.measure(),
        }),
    },
  ],
  exports: [JobConsumer],
})
class RunnerModule {
  static with(handlers: readonly JobHandler[]): DynamicModule {
    const useFactory = (system: SystemJobs) => new Handlers([...handlers, ...system.handlers]);
    return { module: RunnerModule, providers: [{ provide: Handlers, inject: [SystemJobs], useFactory }] };
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
      imports: [ConfigModule.forRoot(config), JobConsumerModule.forLanes(lanes, RunnerModule.with(handlers))],
    };
  }
}
