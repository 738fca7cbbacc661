export { Call, type CallRequest, type Services } from './call.js';
export { mcpConfig } from './config.js';
export { McpEndpoint } from './endpoint.js';
export { McpModule } from './mcp.module.js';
export type { PromptDefinition } from './prompt.js';
export { defineResource, type Completion, type Resource } from './resource.js';
export type { Selection } from './selection.js';
export {
  defineJobTool,
  defineTool,
  type Catalog,
  type Reader,
  type Tool,
  type ToolDefinition,
} from './tool.js';
