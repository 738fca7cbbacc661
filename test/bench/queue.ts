// Workers of the test build, whose kinds do nothing or wait, on Redis: what throughput.ts and workers.ts share.
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Caller } from '@longhaul/access';
import { BullDelivery, QueueConnection } from '@longhaul/job-queue';
import { Jobs, isFinal, queueName } from '@longhaul/jobs';
import { Queue } from 'bullmq';
import { slowCompute } from '../conformance/fixtures/kinds.js';
import { eventually } from '../support/eventually.js';
import { NODE_FLAGS, firstMessage } from './programs.js';
import { TEST_SECRETS_KEYS, makeUser, testDatabase, type TestDatabase } from '../support/database.js';

const TYPESCRIPT = join(import.meta.dirname, '../support/register-typescript.mjs');
const WORKER = join(import.meta.dirname, '../conformance/worker.ts');
export const CONCURRENCY = 20;

/** A program of the benchmark's own, once it says that it is ready; `end` stops it. */
export async function startProgram(file: string, env: NodeJS.ProcessEnv) {
  const child: ChildProcess = fork(file, {
    env: { PATH: process.env.PATH, ...env },
    execArgv: [...NODE_FLAGS, '--no-warnings', '--import', TYPESCRIPT],
  });
  await firstMessage(child);
  const end = async () => {
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    await ended;
  };
  return { child, end };
}

export class QueueBench {
  private constructor(
    readonly database: TestDatabase,
    readonly jobs: Jobs,
    readonly caller: Caller,
    private readonly delivery: BullDelivery,
    private readonly home: string,
  ) {}

  static async start(): Promise<QueueBench> {
    const database = await testDatabase();
    const queue = { DATABASE_URL: database.url, QUEUE_URL: process.env.TEST_REDIS_URL };
    const delivery = new BullDelivery(await QueueConnection.open(queue));
    await delivery.onModuleInit();
    const jobs = new Jobs(database.db, database.audit, delivery, database.changes);
    const { caller } = await makeUser(database.db);
    await database.db.project.updateMany({ data: { liveJobLimit: 1_000_000, concurrency: 3 * CONCURRENCY } });
    return new QueueBench(database, jobs, caller, delivery, mkdtempSync(join(tmpdir(), 'longhaul-bench-')));
  }

  startWorker() {
    return startProgram(WORKER, {
      DATABASE_URL: this.database.url,
      SECRETS_KEYS: TEST_SECRETS_KEYS,
      QUEUE_URL: process.env.TEST_REDIS_URL,
      WORKER_INTERACTIVE_JOBS: String(CONCURRENCY),
      LONGHAUL_HOME: this.home,
      LOG_LEVEL: 'error',
    });
  }

  /** Submits so many jobs that wait for `seconds`, and delivers their ids; recovery leaves them alone. */
  async submit(count: number, seconds: number): Promise<string[]> {
    const { userId, projectIds } = this.caller;
    const submission = { kind: slowCompute, payload: { seconds }, by: { userId }, projectId: projectIds[0]! };
    const ids: string[] = [];
    const submitAll = async () => {
      while (count-- > 0) ids.push((await this.jobs.submit(submission)).id);
    };
    await Promise.all(Array.from({ length: 8 }, submitAll));
    await this.database.db.$executeRaw`
      UPDATE jobs SET redeliver_at = now() + interval '1 hour' WHERE state = 'queued'`;
    return ids;
  }

  /** The rows of such jobs, of which no worker of ours is told, in the order in which they enter the project's window. */
  async rows(count: number): Promise<string[]> {
    await this.submit(count, 0);
    const queue = new Queue(queueName('interactive', undefined), {
      connection: { url: process.env.TEST_REDIS_URL },
    });
    await queue.drain();
    await queue.close();
    const where = { state: 'queued' } as const;
    const rows = await this.database.db.job.findMany({
      where,
      orderBy: [{ createdAt: 'asc' }, { id: 'asc' }],
      select: { id: true },
    });
    return rows.map(({ id }) => id);
  }

  async ended(id: string): Promise<void> {
    await this.jobs.wait(id, ({ state }) => isFinal(state), 60_000);
  }

  /** Jobs a second, from the first claim to the last end, once all of them have ended. */
  async rate(ids: string[]): Promise<number> {
    const [row] = await eventually(
      async () => {
        const rows = await this.database.db.$queryRaw<{ ended: number; seconds: number }[]>`
          SELECT count(*)::int AS ended, extract(epoch FROM max(finished_at) - min(started_at))::float AS seconds
          FROM jobs WHERE id = ANY(${ids}::uuid[]) AND state = 'succeeded'`;
        return rows[0]!.ended === ids.length && rows;
      },
      { withinMs: 300_000, everyMs: 500 },
    );
    return ids.length / row!.seconds;
  }

  async stop(): Promise<void> {
    await this.delivery.onApplicationShutdown();
    await this.database.drop();
    rmSync(this.home, { recursive: true });
  }
}
