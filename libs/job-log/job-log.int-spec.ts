import { createHash, randomBytes } from 'node:crypto';
import { newId, type Job } from '@longhaul/persistence';
import { Attempts, FencedError, Jobs, jobsConfig } from '@longhaul/jobs';
import { makeUser, testDatabase, type TestDatabase } from '../../test/support/database.js';
import { NoDelivery } from '../../test/support/hand-worker.js';
import { JobLog, LogGapError, LogWriter } from './index.js';

let test: TestDatabase;
let log: JobLog;
beforeAll(async () => {
  test = await testDatabase();
  log = new JobLog(test.db);
});
afterAll(() => test.drop());

async function runningJob(): Promise<{ jobId: string; attempt: number }> {
  const { caller } = await makeUser(test.db);
  const jobId = newId();
  const values: Partial<Job> = {
    state: 'running',
    attempt: 1,
    kind: 'x',
    lane: 'bulk',
    scope: 'vms:exec',
    runSeconds: 1,
  };
  await test.db.job.create({
    data: {
      ...(values as Job),
      id: jobId,
      projectId: caller.projectIds[0]!,
      userId: caller.userId,
      payload: {},
      deadlineAt: new Date(),
      result: undefined,
      error: undefined,
      progress: undefined,
      checkpoint: undefined,
      argumentsHash: undefined,
    },
  });
  return { jobId, attempt: 1 };
}

const sha = (data: Buffer) => createHash('sha256').update(data).digest('hex');

async function readAll(jobId: string, maxBytes: number): Promise<Buffer> {
  const parts: Buffer[] = [];
  for (let at = 0; ;) {
    const { data } = await log.read(jobId, 'stdout', at, maxBytes);
    if (data.length === 0) return Buffer.concat(parts);
    parts.push(data);
    at += data.length;
  }
}

it('reads back what was appended, wherever a read begins and however long it is', async () => {
  const ref = await runningJob();
  const data = randomBytes(300_000);
  const writer = await LogWriter.open(log, ref, 'stdout', 1e9);
  for (let at = 0; at < data.length; at += 70_001) await writer.write(data.subarray(at, at + 70_001));
  expect(sha(await readAll(ref.jobId, 65_536))).toBe(sha(data));
  for (let n = 0; n < 50; n++) {
    const at = Math.floor(Math.random() * data.length);
    const max = 1 + Math.floor(Math.random() * 65_536);
    const slice = await log.read(ref.jobId, 'stdout', at, max);
    expect(slice.data.equals(data.subarray(at, at + max))).toBe(true);
    expect(slice).toMatchObject({ size: data.length, closed: false, dropped: 0 });
  }
  expect((await log.read(ref.jobId, 'stdout', data.length, 10)).data).toHaveLength(0);
});

it('takes appends of many jobs in one commit', async () => {
  const refs = await Promise.all(Array.from({ length: 10 }, runningJob));
  await Promise.all(
    refs.map(async (ref) => {
      const writer = await LogWriter.open(log, ref, 'stdout', 1e9);
      await writer.write(Buffer.from(ref.jobId));
    }),
  );
  for (const ref of refs) expect((await readAll(ref.jobId, 100)).toString()).toBe(ref.jobId);
});

it('and heartbeats of the same jobs, in whatever order they are named, wait for each other without a deadlock', async () => {
  const { db, audit, changes } = test;
  const jobs = new Jobs(db, audit, new NoDelivery(), changes);
  const attempts = new Attempts(db, jobs, jobsConfig.parse({}));
  const refs = await Promise.all(Array.from({ length: 60 }, runningJob));
  await Promise.all(refs.map((ref) => log.open(ref, 'stdout')));
  const upwards = refs.toSorted((a, b) => (a.jobId < b.jobId ? -1 : 1));
  const beat = async (rounds: number) => {
    for (let n = 0; n < rounds; n++) await attempts.heartbeat(upwards.toReversed());
  };
  const append = async (rounds: number) => {
    for (let n = 0; n < rounds; n++)
      await Promise.all(upwards.map((ref) => log.append(ref, 'stdout', n, Buffer.from('x'))));
  };
  await Promise.all([beat(400), append(20)]);
  for (const { jobId } of refs) expect(await readAll(jobId, 100)).toHaveLength(20);
});

it('skips bytes that are there already, refuses different ones, and answers a gap with the size', async () => {
  const ref = await runningJob();
  await log.open(ref, 'stdout');
  await log.append(ref, 'stdout', 0, Buffer.from('0123456789'));
  await log.append(ref, 'stdout', 5, Buffer.from('56789abc'));
  await log.append(ref, 'stdout', 2, Buffer.from('234'));
  expect((await readAll(ref.jobId, 100)).toString()).toBe('0123456789abc');
  await expect(log.append(ref, 'stdout', 2, Buffer.from('xyz'))).rejects.toThrow('differs');
  await expect(log.append(ref, 'stdout', 99, Buffer.from('x'))).rejects.toMatchObject({ size: 13 });
  await expect(log.append(ref, 'stdout', 99, Buffer.from('x'))).rejects.toThrow(LogGapError);
});

it('refuses appends of an attempt that is not current', async () => {
  const ref = await runningJob();
  await log.open(ref, 'stdout');
  await test.db.job.update({ where: { id: ref.jobId }, data: { attempt: 2 } });
  await expect(log.append(ref, 'stdout', 0, Buffer.from('late'))).rejects.toThrow(FencedError);
  expect(await readAll(ref.jobId, 100)).toHaveLength(0);
});

it('keeps what fits the limit and counts the rest; a later writer goes on counting', async () => {
  const ref = await runningJob();
  const writer = await LogWriter.open(log, ref, 'stdout', 10);
  await writer.write(Buffer.from('0123456'));
  await writer.write(Buffer.from('789abc'));
  const next = await LogWriter.open(log, ref, 'stdout', 10);
  expect(next.size).toBe(10);
  await next.write(Buffer.from('d'));
  expect(await log.read(ref.jobId, 'stdout', 0, 100)).toMatchObject({ size: 10, dropped: 4 });
  await next.setDropped(104);
  expect(await log.read(ref.jobId, 'stdout', 0, 100)).toMatchObject({ size: 10, dropped: 104 });
  expect((await readAll(ref.jobId, 100)).toString()).toBe('0123456789');
});

it('closes with the job', async () => {
  const ref = await runningJob();
  await test.db.job.update({
    where: { id: ref.jobId },
    data: { state: 'succeeded', finishedAt: new Date() },
  });
  expect(await log.read(ref.jobId, 'stderr', 0, 10)).toMatchObject({ size: 0, closed: true });
});

it('begins a tail at a whole character', async () => {
  const ref = await runningJob();
  const writer = await LogWriter.open(log, ref, 'stdout', 1e9);
  await writer.write(Buffer.from('x€€'));
  expect(await log.tail(ref.jobId, 'stdout', 5)).toMatchObject({ offset: 4, data: Buffer.from('€') });
  expect(await log.tail(ref.jobId, 'stdout', 100)).toMatchObject({ offset: 0, data: Buffer.from('x€€') });
});
