// Appending to a job's log and reading slices of it, in a log of 1 MiB and in one of 1 GiB, against the least SQL that does it.
import { randomBytes } from 'node:crypto';
import { JobLog } from '@longhaul/job-log';
import { newId } from '@longhaul/persistence';
import pg from 'pg';
import { slowCompute } from '../conformance/fixtures/kinds.js';
import { makeUser, testDatabase, type TestDatabase } from '../support/database.js';
import { median, round, timed } from './figures.js';

const MIB = 1024 * 1024;
const CHUNK = 64 * 1024;
const SLICE = 16 * 1024;
const SLICES = 1_000;
const APPENDS = 64;

interface Ref {
  jobId: string;
  attempt: number;
}

export default async function logs(): Promise<object> {
  const test = await testDatabase();
  const sql = new pg.Client({ connectionString: test.url });
  await sql.connect();
  try {
    const bench = new LogBench(new JobLog(test.db), sql);
    const [small, large] = [await runningJob(test), await runningJob(test)];
    await bench.fill(small, MIB);
    await bench.fill(large, 1024 * MIB);
    await sql.query('VACUUM ANALYZE job_log_chunks');
    const [read1m, read1g] = [await bench.read(small, MIB), await bench.read(large, 1024 * MIB)];
    const [append1m, append1g] = [await bench.append(small, MIB), await bench.append(large, 1024 * MIB)];
    const show = ({ ours, raw }: Times) => `${round(ours)} ms, raw ${round(raw)} ms`;
    console.log(`log: a slice of ${SLICE} bytes at 1 MiB ${show(read1m)}; at 1 GiB ${show(read1g)}`);
    console.log(`log: an append of 1 MiB at 1 MiB ${show(append1m)}; at 1 GiB ${show(append1g)}`);
    return {
      log_read_1g_to_1m: round(read1g.ours / read1m.ours),
      log_read_to_sql: round(Math.max(read1m.ours / read1m.raw, read1g.ours / read1g.raw)),
      log_append_to_sql: round(Math.max(append1m.ours / append1m.raw, append1g.ours / append1g.raw)),
    };
  } finally {
    await sql.end();
    await test.drop();
  }
}

interface Times {
  ours: number;
  raw: number;
}

class LogBench {
  constructor(
    private readonly log: JobLog,
    private readonly sql: pg.Client,
  ) {}

  async fill(ref: Ref, bytes: number): Promise<void> {
    await this.log.open(ref, 'stdout');
    const data = randomBytes(MIB);
    for (let at = 0; at < bytes; at += MIB) await this.log.append(ref, 'stdout', at, data);
  }

  /** Medians of warm slices, read in turns. */
  async read({ jobId }: Ref, bytes: number): Promise<Times> {
    const times = { ours: [] as number[], raw: [] as number[] };
    for (let n = -SLICES / 10; n < SLICES; n++) {
      const at = Math.floor(Math.random() * (bytes - SLICE));
      const ours = await timed(() => this.log.read(jobId, 'stdout', at, SLICE));
      const raw = await timed(() => this.readRaw(jobId, at));
      if (n < 0) continue;
      times.ours.push(ours);
      times.raw.push(raw);
    }
    return { ours: median(times.ours), raw: median(times.raw) };
  }

  /** Both write the same rows, and neither waits for the disk. */
  async append(ref: Ref, size: number): Promise<Times> {
    const other = { ...ref, jobId: newId() };
    await this.sql.query('INSERT INTO job_log_streams (job_id, stream, size) VALUES ($1, $2, $3)', [
      other.jobId,
      'stdout',
      size,
    ]);
    const times = { ours: [] as number[], raw: [] as number[] };
    for (let at = size; at < size + APPENDS * MIB; at += MIB) {
      const data = randomBytes(MIB);
      times.ours.push(await timed(() => this.log.append(ref, 'stdout', at, data)));
      times.raw.push(await timed(() => this.appendRaw(other.jobId, at, data)));
    }
    return { ours: median(times.ours), raw: median(times.raw) };
  }

  private async readRaw(jobId: string, at: number): Promise<void> {
    const first = Math.floor(at / CHUNK) * CHUNK;
    const { rows } = await this.sql.query<{ data: Buffer }>({
      name: 'read',
      text: `SELECT data FROM job_log_chunks WHERE job_id = $1 AND stream = 'stdout' AND "offset" >= $2 AND "offset" < $3
        ORDER BY "offset"`,
      values: [jobId, first, at + SLICE],
    });
    const { length } = Buffer.concat(rows.map(({ data }) => data)).subarray(at - first, at - first + SLICE);
    if (length !== SLICE) throw new Error(`a slice of ${length} bytes`);
  }

  private async appendRaw(jobId: string, at: number, data: Buffer): Promise<void> {
    await this.sql.query('BEGIN; SET LOCAL synchronous_commit = off');
    await this.sql.query({
      name: 'grow',
      text: `UPDATE job_log_streams SET size = $3 WHERE job_id = $1 AND stream = 'stdout' AND size = $2`,
      values: [jobId, at, at + data.length],
    });
    await this.sql.query({
      name: 'append',
      text: `INSERT INTO job_log_chunks (job_id, stream, "offset", data)
        SELECT $1, 'stdout', start, data FROM unnest($2::bigint[], $3::bytea[]) AS chunk (start, data)`,
      values: [jobId, ...chunksOf(data, at)],
    });
    await this.sql.query('COMMIT');
  }
}

function chunksOf(data: Buffer, at: number): [number[], Buffer[]] {
  const starts = Array.from({ length: data.length / CHUNK }, (_, index) => index * CHUNK);
  return [starts.map((start) => at + start), starts.map((start) => data.subarray(start, start + CHUNK))];
}

async function runningJob({ db }: TestDatabase): Promise<Ref> {
  const { caller } = await makeUser(db);
  const job = await db.job.create({
    data: {
      id: newId(),
      kind: slowCompute.name,
      version: 1,
      scope: slowCompute.scope,
      lane: 'bulk',
      state: 'running',
      attempt: 1,
      projectId: caller.projectIds[0]!,
      userId: caller.userId,
      payload: {},
      runSeconds: 3600,
      deadlineAt: new Date(),
    },
  });
  return { jobId: job.id, attempt: 1 };
}
