export * from './channel.js';
export { withLock, type LockOptions } from './lock.js';
export { AgentChannel, type AgentChannelOptions } from './agent/agent-channel.js';
export * from './command.js';
export type { CommandEnd, CommandState, RefusalReason } from './command-state.js';
export { installFile, type FileSource, type FileToInstall, type InstallEnd } from './install.js';
export {
  listGuestDirectory,
  readGuestFile,
  LIST_MAX_ENTRIES,
  type GuestDirectorySlice,
  type GuestFileEntry,
  type GuestFileSlice,
} from './files.js';
