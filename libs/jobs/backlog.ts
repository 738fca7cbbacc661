import { envInteger } from '@longhaul/config';
import type { Database } from '@longhaul/persistence';
import { z } from 'zod';

export const submissionConfig = z.object({
  QUEUE_LIMIT: envInteger(1, 10_000_000)
    .default(100_000)
    .describe('With so many unfinished jobs of all projects together, no client may submit another one'),
});

const COUNT_MS = 1_000;

/**
 * The unfinished jobs of everybody, as one process knows them: counted at most once a second, while somebody asks, and what it
 * has added since. So the limit may be passed by what other processes submit in a second.
 */
export class Backlog {
  unfinished = 0;
  private countedAt = -Infinity;

  constructor(
    private readonly db: Database,
    private readonly limit: number,
  ) {}

  async isFull(): Promise<boolean> {
    if (this.limit !== Infinity && performance.now() - this.countedAt > COUNT_MS) {
      this.countedAt = performance.now();
      const [row] = await this.db.$queryRaw<{ unfinished: number }[]>`
        SELECT count(*)::int AS unfinished FROM (SELECT FROM jobs
          WHERE state IN ('queued', 'running', 'awaiting_input') LIMIT ${this.limit}) AS counted`;
      this.unfinished = row!.unfinished;
    }
    return this.unfinished >= this.limit;
  }

  added(): void {
    this.unfinished++;
  }
}
