export { correlation, traceIdOf, type Correlation } from './correlation.js';
export { createLogger, NestLogger, setLogLevel, telemetryConfig, type Logger } from './logger.js';
