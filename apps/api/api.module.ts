import { Module, type DynamicModule } from '@nestjs/common';
import { AccessModule, RatesModule } from '@longhaul/access';
import { ArtifactsModule } from '@longhaul/artifacts';
import { AuditModule } from '@longhaul/audit';
import { ConfigModule } from '@longhaul/config';
import { JobLogModule } from '@longhaul/job-log';
import { JobQueueModule } from '@longhaul/job-queue';
import { JobsModule } from '@longhaul/jobs';
import { McpModule, type Catalog } from '@longhaul/mcp';
import { OauthModule } from '@longhaul/oauth';
import { PersistenceModule } from '@longhaul/persistence';
import { SecretsModule } from '@longhaul/secrets';
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
        McpModule.with(served, services),
      ],
      controllers: [McpController, HealthController],
    };
  }
}
