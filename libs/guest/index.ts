export * from './channel.js';
export { withLock, type LockOptions } from './lock.js';
export { AgentChannel, type AgentChannelOptions } from './agent/agent-channel.js';
