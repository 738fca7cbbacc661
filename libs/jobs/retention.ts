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

/** Deletes what is kept no longer. Several may run it at once: rows are taken with FOR UPDATE SKIP LOCKED. */
@Injectable()
export class Retention {
  private readonly days: number;

  constructor(
    private readonly db: Database,
    @Inject(CONFIG) config: z.output<typeof retentionConfig>,
  ) {
    this.days = config.JOB_RETENTION_DAYS;
  }

  /**
   * Batch after batch until nothing is left to delete, or `stop` aborts. `forget` is given the ids of archived pieces of deleted
   * logs, to delete them from the store; what it does not get done is collected as orphans. Answers how many jobs it were.
   */
  async sweep(stop: AbortSignal, forget: (pieces: string[]) => Promise<unknown>): Promise<number> {
    await this.deleteRequestStates();
    await this.db.$executeRaw`DELETE FROM one_time_secrets WHERE expires_at < now()`;
    let deleted = 0;
    for (let found = BATCH; found === BATCH && !stop.aborted; deleted += found) {
      const { jobs, pieces } = await this.deleteJobs();
      await forget(pieces);
      found = jobs;
    }
    return deleted;
  }

  /**
   * Jobs whose end is long ago, with their logs, which have no foreign key. Naming all projects and the time of creation,
   * which is before the end, lets the index over both find them.
   */
  private async deleteJobs(): Promise<{ jobs: number; pieces: string[] }> {
    const since = Prisma.sql`now() - ${this.days} * interval '1 day'`;
    const [deleted] = await this.db.$queryRaw<{ jobs: number; pieces: string[] }[]>`
      WITH old AS (
        SELECT id FROM jobs
        WHERE project_id = ANY (ARRAY(SELECT id FROM projects)) AND created_at < ${since} AND finished_at < ${since}
          AND NOT quarantined
        LIMIT ${BATCH} FOR UPDATE SKIP LOCKED),
      chunks AS (DELETE FROM job_log_chunks USING old WHERE job_id = old.id),
      streams AS (DELETE FROM job_log_streams USING old WHERE job_id = old.id),
      pieces AS (DELETE FROM job_log_archives AS pieces USING old WHERE job_id = old.id RETURNING pieces.id),
      deleted AS (DELETE FROM jobs USING old WHERE jobs.id = old.id RETURNING jobs.id)
      SELECT (SELECT count(*)::int FROM deleted) AS jobs, ARRAY(SELECT id FROM pieces) AS pieces`;
    return deleted!;
  }

  /** One that has expired is refused for its age, used or not. */
  private async deleteRequestStates(): Promise<void> {
    await this.db.$executeRaw`
      DELETE FROM used_request_states WHERE id IN (
        SELECT id FROM used_request_states WHERE expires_at < now() FOR UPDATE SKIP LOCKED)`;
  }
}
