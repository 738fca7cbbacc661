// Jobs that do nothing, by one worker on Redis, against a BullMQ worker on the same Redis that runs the statements of such a
// job (claim, end, audit) and does nothing else; and how long one takes from its submission to its end.
import { once } from 'node:events';
import { join } from 'node:path';
import { Attempts, jobsConfig } from '@longhaul/jobs';
import { Queue } from 'bullmq';
import { median, round, timed } from './figures.js';
import { QueueBench, startProgram } from './queue.js';
import { recordStatements } from './statements.js';

/** So many that a worker's first second, in which its code is compiled, does not count for much. */
const JOBS = 5_000;
const ROUNDS = 3;
const SINGLE_JOBS = 50;
const RAW_WORKER = join(import.meta.dirname, 'raw-worker.ts');

export default async function throughput(): Promise<object> {
  const bench = await QueueBench.start();
  const raw = new Queue('raw', { connection: { url: process.env.TEST_REDIS_URL } });
  try {
    const env = await rawEnvironment(bench);
    const ratios: number[] = [];
    for (let n = 0; n < ROUNDS; n++) {
      const rate = { ours: await ourRate(bench), raw: await rawRate(bench, raw, env) };
      console.log(`throughput: Longhaul ${Math.round(rate.ours)} jobs/s, raw ${Math.round(rate.raw)}/s`);
      ratios.push(rate.ours / rate.raw);
    }
    const ms = { ours: await ourLatency(bench), raw: await rawLatency(bench, raw, env) };
    console.log(`latency of a job: Longhaul ${round(ms.ours, 1)} ms, raw ${round(ms.raw, 1)} ms`);
    return { throughput_ratio: round(median(ratios)) };
  } finally {
    await raw.close();
    await bench.stop();
  }
}

/** All are there before the worker is, so that its rate is not that of submissions. */
async function ourRate(bench: QueueBench): Promise<number> {
  const ids = await bench.submit(JOBS, 0);
  const worker = await bench.startWorker();
  return bench.rate(ids).finally(() => worker.end());
}

async function rawRate(bench: QueueBench, queue: Queue, env: NodeJS.ProcessEnv): Promise<number> {
  const ids = await bench.rows(JOBS);
  await queue.addBulk(ids.map((jobId) => ({ name: 'job', data: { jobId } })));
  const worker = await startProgram(RAW_WORKER, env);
  return bench.rate(ids).finally(() => worker.end());
}

async function ourLatency(bench: QueueBench): Promise<number> {
  const worker = await bench.startWorker();
  const times: number[] = [];
  for (let n = 0; n < SINGLE_JOBS; n++)
    times.push(await timed(async () => bench.ended((await bench.submit(1, 0))[0]!)));
  await worker.end();
  return median(times);
}

/** The row is made before, not timed. */
async function rawLatency(bench: QueueBench, queue: Queue, env: NodeJS.ProcessEnv): Promise<number> {
  const ids = await bench.rows(SINGLE_JOBS);
  const worker = await startProgram(RAW_WORKER, env);
  const times: number[] = [];
  for (const jobId of ids) {
    const done = once(worker.child, 'message');
    times.push(await timed(() => Promise.all([queue.add('job', { jobId }), done])));
  }
  await worker.end();
  return median(times);
}

async function rawEnvironment(bench: QueueBench): Promise<NodeJS.ProcessEnv> {
  const [jobId] = (await bench.rows(1)) as [string];
  const attempts = new Attempts(bench.database.db, bench.jobs, jobsConfig.parse({}));
  const statements = await recordStatements(async () => {
    const { attempt } = (await attempts.claim(jobId, 'raw'))!;
    await attempts.finish({ jobId, attempt }, { state: 'succeeded', result: { text: '' } });
  });
  return {
    DATABASE_URL: bench.database.url,
    QUEUE_URL: process.env.TEST_REDIS_URL,
    RAW_JOB: jobId,
    RAW_STATEMENTS: JSON.stringify(statements),
  };
}
