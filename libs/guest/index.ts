export * from './channel.js';
export { withLock, type LockOptions } from './lock.js';
export { AgentChannel, type AgentChannelOptions } from './agent/agent-channel.js';
export { SshChannel, type SshChannelOptions } from './ssh/ssh-channel.js';
export { checkPrivateKey, parseHostKey, type SshTarget } from './ssh/target.js';
export * from './command.js';
export { quote } from './scripts.js';
export type { CommandEnd, CommandState, RefusalReason } from './command-state.js';
export {
  installFile,
  stopInstallation,
  type FileSource,
  type FileToInstall,
  type InstallEnd,
} from './install.js';
export {
  listGuestDirectory,
  readGuestFile,
  LIST_MAX_ENTRIES,
  type GuestDirectorySlice,
  type GuestFileEntry,
  type GuestFileSlice,
} from './files.js';
