export * from './provider.js';
export { QemuProvider, type QemuOptions } from './qemu/qemu-provider.js';
export { TEMPLATE_SHAPE, type Image } from './qemu/image-cache.js';
export { IMAGE_DISK_GB } from './qemu/machine.js';
export { ensureSystemUser } from './qemu/programs.js';
