export * from './provider.js';
export { QemuProvider, type QemuOptions } from './qemu/qemu-provider.js';
export { TEMPLATE_SHAPE, type Image } from './qemu/image-cache.js';
export { IMAGE_DISK_GB } from './qemu/machine.js';
export { ensureSystemUser } from './qemu/programs.js';
export { AdoptedQemuProvider } from './adopted/adopted-qemu-provider.js';
export * from './adopted/connections.js';
export { inspectGuest, inspectQemu, type GuestFacts } from './adopted/inspect.js';
export { SshProvider } from './adopted/ssh-provider.js';
