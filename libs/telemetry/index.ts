export { telemetryConfig } from './config.js';
export { correlation, parseTraceparent, traceIdOf, type Correlation } from './correlation.js';
export { HealthServer } from './health-server.js';
export { createLogger, NestLogger, setLogLevel, type Logger } from './logger.js';
export * as metrics from './metrics.js';
export { Readiness, type Check } from './readiness.js';
export { Tracing, codeOf, startSpan, traced } from './tracing.js';
