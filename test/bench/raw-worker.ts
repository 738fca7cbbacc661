// What throughput.ts measures against: for each delivery it runs the statements of RAW_STATEMENTS, which are those of the job
// RAW_JOB, with the delivered id instead.
import { Worker } from 'bullmq';
import pg from 'pg';
import { CONCURRENCY } from './queue.js';
import type { Statement } from './statements.js';

const { DATABASE_URL, QUEUE_URL, RAW_JOB, RAW_STATEMENTS } = process.env as Record<string, string>;
const statements = JSON.parse(RAW_STATEMENTS!) as Statement[];
const pool = new pg.Pool({ connectionString: DATABASE_URL, max: 10 });

const run = async ({ data: { jobId } }: { data: { jobId: string } }) => {
  const client = await pool.connect();
  for (const [index, { text, values }] of statements.entries()) {
    const own = values.map((value) =>
      typeof value === 'string' ? value.replaceAll(RAW_JOB!, jobId) : value,
    );
    await client.query({ name: values.length > 0 ? `statement-${index}` : undefined, text, values: own });
  }
  client.release();
  process.send!({ jobId });
};
const connection = { url: QUEUE_URL, maxRetriesPerRequest: null };
const worker = new Worker('raw', run, {
  connection,
  concurrency: CONCURRENCY,
  removeOnComplete: { count: 0 },
});
await worker.waitUntilReady();
process.send!({ type: 'ready' });
process.on('SIGTERM', () => process.exit(0));
