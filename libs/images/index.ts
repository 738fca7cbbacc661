export * from './catalog.js';
export { imagesConfig } from './config.js';
export { download, type DownloadOptions } from './download.js';
