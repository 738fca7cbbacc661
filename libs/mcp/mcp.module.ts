import { Module, type DynamicModule, type ModuleMetadata } from '@nestjs/common';
import { McpEndpoint, TOOLS } from './endpoint.js';
import { CallPipeline } from './pipeline.js';
import type { Tool } from './tool.js';

@Module({})
export class McpModule {
  /** `imports` are the modules that export what a Call's services and the audit need. */
  static with(tools: readonly Tool[], imports: ModuleMetadata['imports']): DynamicModule {
    return {
      module: McpModule,
      imports,
      providers: [{ provide: TOOLS, useValue: tools }, CallPipeline, McpEndpoint],
      exports: [McpEndpoint],
    };
  }
}
