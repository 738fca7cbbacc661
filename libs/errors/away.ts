import { isNativeError } from 'node:util/types';

/** Codes of Node's sockets, of Prisma and of PostgreSQL: connections, servers that start or stop, deadlocks. */
const CODES =
  /\b(ECONN[A-Z]+|EPIPE|ETIMEDOUT|EAI_AGAIN|P10(01|02|08|17)|P2024|P2028|P2034|08[0-9A-Z]{3}|53[0-9A-Z]{3}|57P0[0-9]|57014|25P03|4000[0-9]|40P01)\b/;
/** What `pg` and Prisma throw without a code. */
const SAID =
  /can't reach database server|server has closed the connection|cannot use a pool after calling end|connection terminated|timeout exceeded when trying to connect|timeout expired|is not queryable|query read timeout/i;

/** A request to the store that had its time. */
const TIMED_OUT = 'TimeoutError';

/**
 * Whether an error only says that a server was away, cut off or too busy, so that the same thing may well succeed later. Of
 * other errors it knows nothing.
 */
export function isAway(thrown: unknown): boolean {
  // Of any realm: errors of Node itself are not of the one that a test runs in.
  if (!isNativeError(thrown)) return false;
  const { code, message, name, $metadata } = thrown as Error & {
    code?: unknown;
    /** Of errors of S3: the status of a store that is starting, stopping or overloaded is 5xx. */
    $metadata?: { httpStatusCode?: number };
  };
  return (
    CODES.test(String(code)) ||
    SAID.test(message) ||
    CODES.test(/ Code: `(\w+)`/.exec(message)?.[1] ?? '') ||
    name === TIMED_OUT ||
    ($metadata?.httpStatusCode ?? 0) >= 500
  );
}
