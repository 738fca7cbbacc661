export { Attempts, jobsConfig, type Outcome, type Progress, type Versions } from './attempts.js';
export { submissionConfig } from './backlog.js';
export { JobDelivery, type Delivery } from './delivery.js';
export { Jobs, type Actor, type JobFilter } from './jobs.js';
export { JobsModule } from './jobs.module.js';
export { defineJobKind, type JobKind, type Lane, type VmSlot } from './kind.js';
export type { Answer, Question } from './questions.js';
export { measureJobs } from './live-jobs.js';
export { HOST_SILENT_SECONDS, Recovery } from './recovery.js';
export { Retention, retentionConfig } from './retention.js';
export {
  AwaitingInput,
  FencedError,
  LogLostError,
  FINAL_STATES,
  isFinal,
  jobNotFound,
  queueName,
  type AttemptRef,
  type FinalState,
} from './states.js';
export type { Submission } from './submission.js';
