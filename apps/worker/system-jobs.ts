import { Inject, Injectable } from '@nestjs/common';
import { Artifacts, collectOrphans, sweepArtifacts } from '@longhaul/artifacts';
import { dropExpired, makePartitions } from '@longhaul/audit';
import { CONFIG } from '@longhaul/config';
import { LogArchive } from '@longhaul/job-log';
import { Jobs, Retention, defineJobKind } from '@longhaul/jobs';
import { Database, SYSTEM_ID } from '@longhaul/persistence';
import { defineHandler, type JobHandler } from '@longhaul/toolsets/handler';
import { z } from 'zod';
import type { WorkerConfig } from './config.js';

/** Each of them is done once in this time, by whichever worker takes it. */
const PERIOD_SECONDS = 3_600;

/**
 * Retention as jobs of Longhaul's own, which staff see, read the results of and may cancel. Each takes all there is to do by
 * then, so one that was missed or has failed is made up for by the next; what it has done, another attempt finds done.
 */
@Injectable()
export class SystemJobs {
  readonly handlers: readonly JobHandler[];

  constructor(
    @Inject(CONFIG) config: WorkerConfig,
    private readonly db: Database,
    private readonly jobs: Jobs,
    retention: Retention,
    artifacts: Artifacts,
    archive: LogArchive,
  ) {
    const { LOG_ARCHIVE_HOURS: hours, AUDIT_RETENTION_DAYS: auditDays } = config;
    this.handlers = [
      handler('system.archive_logs', async (stop) => ({
        bytes: hours > 0 ? await archive.sweep(hours, stop) : 0,
      })),
      handler('system.delete_jobs', async (stop) => ({
        jobs: await retention.sweep(stop, (pieces) => archive.forget(pieces)),
      })),
      handler('system.delete_files', async (stop) => ({
        artifacts: await sweepArtifacts(db, artifacts, stop),
        orphans: await collectOrphans(this.db, artifacts, stop),
        log_orphans: await archive.collect(stop),
      })),
      handler('system.keep_audit', async () => {
        await makePartitions(db);
        return { partitions: (await dropExpired(db, auditDays)).length };
      }),
    ];
  }

  /** Submits those of the present period that nobody has submitted, unless one of the kind is not done yet. Every worker does. */
  async submit(): Promise<void> {
    const [now] = await this.db.$queryRaw<{ period: number }[]>`
      SELECT floor(extract(epoch FROM now()) / ${PERIOD_SECONDS}::int)::int AS period`;
    const due = this.handlers.map(({ kind }) => ({
      kind,
      idempotencyKey: `${kind.name} ${now!.period}`,
    }));
    const there = await this.db.job.findMany({
      where: {
        userId: SYSTEM_ID,
        OR: [
          { idempotencyKey: { in: due.map(({ idempotencyKey }) => idempotencyKey) } },
          { finishedAt: null },
        ],
      },
      select: { kind: true },
    });
    const kinds = new Set(there.map(({ kind }) => kind));
    for (const job of due.filter(({ kind }) => !kinds.has(kind.name)))
      await this.jobs.submit({ ...job, payload: {}, by: { userId: SYSTEM_ID }, projectId: SYSTEM_ID });
  }
}

/** `run` answers what it did, as numbers; it is told to stop by a cancel as well as when the worker goes away. */
function handler(name: string, run: (stop: AbortSignal) => Promise<Record<string, number>>): JobHandler {
  const kind = defineJobKind({
    name,
    version: 1,
    payload: z.strictObject({}),
    result: z.record(z.string(), z.number()),
    scope: 'projects:write',
    lane: 'bulk',
    queueSeconds: PERIOD_SECONDS,
    runSeconds: () => PERIOD_SECONDS,
  });
  return defineHandler({
    kind,
    // Another worker does what is left.
    goesOn: true,
    async run({ stop, cancel }) {
      const result = await run(AbortSignal.any([stop, cancel])).catch((error: unknown) => {
        if (!stop.aborted && !cancel.aborted) throw error;
      });
      stop.throwIfAborted();
      return cancel.aborted ? { state: 'cancelled' } : { state: 'succeeded', result };
    },
  });
}
