export * from './catalog.js';
export { download, type DownloadOptions } from './download.js';
