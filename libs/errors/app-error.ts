import { randomUUID } from 'node:crypto';
import { isAway } from './away.js';
import { ERROR_CODES, type ErrorCode } from './catalogue.js';

/** What leaves the process about an error: over MCP, REST, in a job's row and in the audit. */
export interface ErrorBody {
  code: ErrorCode;
  message: string;
  retryable: boolean;
  details?: Record<string, unknown>;
}

/** An error that may be shown to the caller as it is: its message says what to do and holds no secret. */
export class AppError extends Error {
  constructor(
    readonly code: ErrorCode,
    message: string,
    readonly details?: Record<string, unknown>,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.name = 'AppError';
  }

  toBody(): ErrorBody {
    const { retryable } = ERROR_CODES[this.code];
    return {
      code: this.code,
      message: this.message,
      retryable,
      ...(this.details && { details: this.details }),
    };
  }
}

/**
 * Turns whatever was thrown into an AppError: `unavailable` where a server was away, `internal` with an id for anything else
 * that nobody foresaw. The original (kept as `cause`) is to be logged; its own message never reaches a caller.
 */
export function toAppError(thrown: unknown): AppError {
  if (thrown instanceof AppError) return thrown;
  if (isAway(thrown)) {
    const message = 'Something that Longhaul needs does not answer right now. Try again.';
    return new AppError('unavailable', message, undefined, { cause: thrown });
  }
  const errorId = randomUUID();
  return new AppError(
    'internal',
    `Something failed inside Longhaul. Quote error id ${errorId}.`,
    { error_id: errorId },
    { cause: thrown },
  );
}
