export { Audit, resultOf, type AuditEntry } from './audit.js';
export { AuditModule } from './audit.module.js';
export { auditConfig, dropExpired, makePartitions } from './partitions.js';
export type { Sealed } from './chain.js';
export { sealEvents } from './seal.js';
export { PAGE_MAX, type AuditFilter, type AuditPage } from './search.js';
export { verifyAudit, type Finding, type Verification } from './verify.js';
