export { correlation, type Correlation } from './correlation.js';
export { createLogger, NestLogger, telemetryConfig, type Logger } from './logger.js';
