import type { LoggerService } from '@nestjs/common';
import { redactText } from '@longhaul/errors';
import { pino, stdTimeFunctions, type Logger } from 'pino';
import type { TelemetryConfig } from './config.js';
import { correlation } from './correlation.js';

export type { Logger };

type Level = TelemetryConfig['LOG_LEVEL'];

let level: Level = 'info';
const loggers: Logger[] = [];

/** Of all loggers of the process, those made before too. */
export function setLogLevel(wanted: Level): void {
  level = wanted;
  for (const logger of loggers) logger.level = wanted;
}

/** JSON lines on standard output, each with the request and job it belongs to; secrets in messages are redacted. */
export function createLogger(name: string): Logger {
  const logger = pino({
    name,
    level,
    timestamp: stdTimeFunctions.isoTime,
    mixin: () => ({ ...correlation.getStore(), traceparent: undefined }),
    serializers: { err: (error: unknown) => bareError(error) },
    redact: { paths: ['token', 'password', 'authorization', '*.token', '*.password', '*.authorization'] },
    hooks: {
      logMethod(args, method) {
        method.apply(
          this,
          args.map((arg: unknown) => (typeof arg === 'string' ? redactText(arg, 8192) : arg)) as typeof args,
        );
      },
    },
  });
  loggers.push(logger);
  return logger;
}

/**
 * What is logged of an error. Libraries hang on their errors what they failed on, rows and parameters with commands in
 * them: none of that is taken along.
 */
function bareError(error: unknown, depth = 0): unknown {
  if (typeof error !== 'object' || error === null || depth > 3) return redactText(String(error));
  const { name, message, stack, code, cause } = error as Partial<Error & { code: unknown }>;
  return {
    type: name,
    message: redactText(String(message), 2048),
    ...(code !== undefined && { code: redactText(String(code), 64) }),
    stack: redactText(String(stack), 8192),
    ...(cause !== undefined && { cause: bareError(cause, depth + 1) }),
  };
}

/** Lets Nest's own messages go through pino. */
export class NestLogger implements LoggerService {
  constructor(private readonly logger: Logger) {}
  log(message: unknown, context?: unknown) {
    this.logger.debug({ context }, String(message));
  }
  warn(message: unknown, context?: unknown) {
    this.logger.warn({ context }, String(message));
  }
  error(message: unknown, stack?: unknown, context?: unknown) {
    this.logger.error({ context, stack }, String(message));
  }
}
