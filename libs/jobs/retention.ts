import { Inject, Injectable } from '@nestjs/common';
import { CONFIG, envInteger } from '@longhaul/config';
import { Database, Prisma } from '@longhaul/persistence';
import { z } from 'zod';

export const retentionConfig = z.object({
  JOB_RETENTION_DAYS: envInteger(1, 3650)
    .default(30)
    .describe('A job is deleted, with its output, this long after its end; the audit stays'),
});

/** Jobs that one statement deletes with all they have. */
const BATCH = 500;

/** Deletes what is kept no longer. Every worker runs it, without a leader: rows are taken with FOR UPDATE SKIP LOCKED. */
@Injectable()
export class Retention {
  private readonly days: number;

  constructor(
    private readonly db: Database,
    @Inject(CONFIG) config: z.output<typeof retentionConfig>,
  ) {
    this.days = config.JOB_RETENTION_DAYS;
  }

  /** Batch after batch until nothing is left to delete, or `stop` aborts. */
  async sweep(stop: AbortSignal): Promise<void> {
    await this.deleteRequestStates();
    await this.db.$executeRaw`DELETE FROM one_time_secrets WHERE expires_at < now()`;
    while (!stop.aborted && (await this.deleteJobs()) === BATCH);
  }

  /**
   * Jobs whose end is long ago, with their logs, which have no foreign key. Naming all projects and the time of creation,
   * which is before the end, lets the index over both find them.
   */
  private async deleteJobs(): Promise<number> {
    const since = Prisma.sql`now() - ${this.days} * interval '1 day'`;
    return this.db.$executeRaw`
      WITH old AS (
        SELECT id FROM jobs
        WHERE project_id = ANY (ARRAY(SELECT id FROM projects)) AND created_at < ${since} AND finished_at < ${since}
          AND NOT quarantined
        LIMIT ${BATCH} FOR UPDATE SKIP LOCKED),
      chunks AS (DELETE FROM job_log_chunks USING old WHERE job_id = old.id),
      streams AS (DELETE FROM job_log_streams USING old WHERE job_id = old.id)
      DELETE FROM jobs USING old WHERE jobs.id = old.id`;
  }

  /** One that has expired is refused for its age, used or not. */
  private async deleteRequestStates(): Promise<void> {
    await this.db.$executeRaw`
      DELETE FROM used_request_states WHERE id IN (
        SELECT id FROM used_request_states WHERE expires_at < now() FOR UPDATE SKIP LOCKED)`;
  }
}
