import { setTimeout as pause } from 'node:timers/promises';
import { isAway } from '@longhaul/errors';
import { createLogger } from '@longhaul/telemetry';

const START_MS = 60_000;
const AGAIN_MS = 1_000;

/**
 * What `ask` answers once the database is there: whoever starts while it is away tries again each second for a minute, and says
 * so in the log. Errors: after that, and at once for any that is no sign of an absence, that of `ask`.
 */
export async function whenUp<T>(ask: () => Promise<T>, withinMs = START_MS): Promise<T> {
  const log = createLogger('persistence');
  for (const giveUpAt = performance.now() + withinMs; ; await pause(AGAIN_MS)) {
    try {
      return await ask();
    } catch (error) {
      if (!isAway(error)) throw error;
      if (performance.now() + AGAIN_MS > giveUpAt)
        throw new Error(`PostgreSQL was away for ${withinMs / 1000} s`, { cause: error });
      log.warn({ err: error }, 'PostgreSQL is away, trying again');
    }
  }
}
