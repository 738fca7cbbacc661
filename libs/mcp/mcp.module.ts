import { Module, type DynamicModule, type ModuleMetadata } from '@nestjs/common';
import { McpEndpoint } from './endpoint.js';
import { Subscriptions } from './listen.js';
import { CallPipeline } from './pipeline.js';
import { RequestStates } from './request-states.js';
import { CATALOG, McpServers } from './server.js';
import { SessionNews } from './session-news.js';
import { Sessions } from './sessions.js';
import type { Catalog } from './tool.js';
import { Topics } from './topics.js';

@Module({})
export class McpModule {
  /** `imports` are the modules that export what a Call's services and the audit need. */
  static with(catalog: Catalog, imports: ModuleMetadata['imports']): DynamicModule {
    return {
      module: McpModule,
      imports,
      providers: [
        { provide: CATALOG, useValue: catalog },
        RequestStates,
        CallPipeline,
        McpServers,
        Sessions,
        Topics,
        SessionNews,
        Subscriptions,
        McpEndpoint,
      ],
      exports: [McpEndpoint],
    };
  }
}
