export * from './channel.js';
export { withLock, type LockOptions } from './lock.js';
