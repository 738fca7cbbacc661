export { Artifacts, UPLOAD_MINUTES, type Announced, type ArtifactState, type Trace } from './artifacts.js';
export { ArtifactsModule } from './artifacts.module.js';
export { collectOrphans, sweepArtifacts } from './sweep.js';
export { artifactsConfig, type ArtifactsConfig } from './config.js';
export { CONTENT_TYPE, ContentUrls } from './content-urls.js';
export { DiskStore } from './disk-store.js';
export { artifactExpired, artifactNotFound, notUploaded, shaMismatch, sizeMismatch } from './failures.js';
export {
  ArtifactStore,
  LogStore,
  type ByteRange,
  type Declared,
  type StoredBytes,
  type Upload,
} from './store.js';
