import { Module, type DynamicModule } from '@nestjs/common';
import { AccessModule, RatesModule } from '@longhaul/access';
import { ArtifactStore, ArtifactsModule } from '@longhaul/artifacts';
import { AuditModule } from '@longhaul/audit';
import { ConfigModule } from '@longhaul/config';
import { JobLogModule } from '@longhaul/job-log';
import { JobQueueModule } from '@longhaul/job-queue';
import { JobDelivery, JobsModule, measureJobs } from '@longhaul/jobs';
import { McpModule, type Catalog } from '@longhaul/mcp';
import { OauthModule } from '@longhaul/oauth';
import { Database, PersistenceModule } from '@longhaul/persistence';
import { SecretsModule } from '@longhaul/secrets';
import { HealthServer, Readiness, Tracing } from '@longhaul/telemetry';
import { catalog, toolsets } from '../../libs/toolsets/catalog.js';
import { prompts } from '../../libs/toolsets/prompts.js';
import { resources } from '../../libs/toolsets/resources.js';
import type { ApiConfig } from './config.js';
import { HealthController } from './health.controller.js';
import { McpController } from './mcp.controller.js';

/** What the product serves. */
export const product: Catalog = { tools: catalog, toolsets, resources, prompts };

@Module({})
export class ApiModule {
  static with(config: ApiConfig, served: Catalog): DynamicModule {
    const services = [
      PersistenceModule,
      AccessModule,
      RatesModule,
      AuditModule,
      SecretsModule,
      ArtifactsModule,
      JobLogModule,
      JobsModule.with(JobQueueModule),
    ];
    return {
      module: ApiModule,
      imports: [
        ConfigModule.forRoot(config),
        PersistenceModule,
        AccessModule,
        OauthModule,
        ArtifactsModule,
        JobQueueModule,
        McpModule.with(served, services),
      ],
      controllers: [McpController, HealthController],
      providers: [
        {
          provide: Readiness,
          inject: [Database, JobDelivery, ArtifactStore],
          useFactory: (db: Database, queue: JobDelivery, store: ArtifactStore) =>
            new Readiness({
              database: () => db.$queryRaw`SELECT 1`,
              queue: () => queue.ping(),
              artifacts: (signal) => store.check(signal),
            }),
        },
        { provide: Tracing, useFactory: () => Tracing.start(config, 'longhaul-api') },
        {
          provide: HealthServer,
          inject: [Readiness, Database],
          useFactory: (readiness: Readiness, db: Database) =>
            new HealthServer(readiness, {
              host: config.METRICS_HOST,
              port: config.METRICS_PORT,
              variable: 'METRICS_PORT',
              collect: async () => {
                db.measure();
                await measureJobs(db);
              },
            }),
        },
      ],
    };
  }
}
