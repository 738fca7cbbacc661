import { setTimeout as pause } from 'node:timers/promises';

/**
 * Asks `look` every `everyMs` until it answers something truthy, and answers that. Fails after `withinMs` with the
 * last error or answer; `look` may throw while the condition does not hold yet.
 */
export async function eventually<T>(
  look: () => T | Promise<T>,
  { withinMs = 30_000, everyMs = 20 }: { withinMs?: number; everyMs?: number } = {},
): Promise<Exclude<T, false | 0 | '' | null | undefined>> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    let last: unknown;
    try {
      const answer = await look();
      if (answer) return answer as Exclude<T, false | 0 | '' | null | undefined>;
      last = answer;
    } catch (error) {
      last = error;
    }
    if (performance.now() > deadline) {
      throw new Error(`Not within ${withinMs} ms; the last look gave ${String(last)}`, { cause: last });
    }
    await pause(everyMs);
  }
}
