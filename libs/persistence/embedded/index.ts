export { startEmbeddedPostgres, type EmbeddedPostgres, type EmbeddedPostgresOptions } from './postgres.js';
export { startTimeOf } from './process.js';
export { freePort } from './port.js';
