export { LogArchive } from './archive.js';
export { JobLog, LogGapError, STREAMS, jobLogConfig, type LogSlice, type LogStream } from './job-log.js';
export { JobLogModule } from './job-log.module.js';
export { LogGrowth, type StreamRef } from './log-growth.js';
export { LogWriter } from './log-writer.js';
export { encodeSlice, type EncodedSlice } from './text.js';
