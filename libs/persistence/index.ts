export { Database, persistenceConfig, type Transaction } from './database.js';
export { PersistenceModule } from './persistence.module.js';
export { StateChanges } from './state-changes.js';
export { batched } from './batched.js';
export { JOB_COLUMNS, VM_COLUMNS, camelKeys } from './rows.js';
export { SYSTEM_ID, newId, parseId } from './ids.js';
export * from './generated/client.js';
export { applyMigrations } from './migrate.js';
export { startEmbeddedPostgres } from './embedded/index.js';
