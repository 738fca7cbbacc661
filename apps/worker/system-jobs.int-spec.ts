import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Caller } from '@longhaul/access';
import { parseConfig } from '@longhaul/config';
import { JobLog, LogArchive } from '@longhaul/job-log';
import { Jobs } from '@longhaul/jobs';
import { SYSTEM_ID, newId, type Job } from '@longhaul/persistence';
import { setLogLevel } from '@longhaul/telemetry';
import type { INestApplicationContext } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { makeArtifact, testArtifacts } from '../../test/support/artifacts.js';
import {
  TEST_SECRETS_KEYS,
  makeUser,
  makeVm,
  testDatabase,
  type TestDatabase,
} from '../../test/support/database.js';
import { eventually } from '../../test/support/eventually.js';
import { HandWorker, NoDelivery } from '../../test/support/hand-worker.js';
import { startTestApi } from '../../test/support/mcp.js';
import { makeStaff, rest } from '../../test/support/rest.js';
import { work } from '../../test/support/work.js';
import { workerConfig } from './config.js';
import { JobRunner } from './job-runner.js';
import { SystemJobs } from './system-jobs.js';
import { WorkerModule } from './worker.module.js';

const MIB = 1024 * 1024;
const KINDS = ['system.archive_logs', 'system.delete_files', 'system.delete_jobs', 'system.keep_audit'];

let test: TestDatabase;
let home: string;
let caller: Caller;
let workers: INestApplicationContext[];
beforeEach(async () => {
  setLogLevel('silent');
  test = await testDatabase();
  home = mkdtempSync(join(tmpdir(), 'system-jobs-'));
  ({ caller } = await makeUser(test.db));
  workers = [];
});
afterEach(async () => {
  await Promise.all(workers.map((worker) => worker.close()));
  await test.drop();
  rmSync(home, { recursive: true });
});

async function startWorker(): Promise<INestApplicationContext> {
  const config = parseConfig(workerConfig, {
    DATABASE_URL: test.url,
    QUEUE_URL: test.url,
    LONGHAUL_HOME: home,
    SECRETS_KEYS: TEST_SECRETS_KEYS,
  });
  const worker = await NestFactory.createApplicationContext(WorkerModule.with(config, []), { logger: false });
  workers.push(worker);
  return worker;
}

/** A job that ended `days` ago, with output. */
async function ended(days: number, output: Buffer): Promise<string> {
  const jobs = new Jobs(test.db, test.audit, new NoDelivery(), test.changes);
  const worker = new HandWorker(test);
  const { id } = await jobs.submit({ kind: work, payload: {}, by: caller, projectId: caller.projectIds[0]! });
  const ref = await worker.claim(id);
  for (let at = 0; at < output.length; at += MIB)
    await worker.write(ref, 'stdout', output.subarray(at, at + MIB));
  await worker.finish(ref, { state: 'succeeded' });
  await test.db.$executeRaw`
    UPDATE jobs SET created_at = now() - ${days} * interval '1 day', finished_at = now() - ${days} * interval '1 day'
    WHERE id = ${id}::uuid`;
  return id;
}

/** Of the kind, those that have ended. */
const systemJobs = (): Promise<Job[]> =>
  test.db.job.findMany({
    where: { projectId: SYSTEM_ID, finishedAt: { not: null } },
    orderBy: { kind: 'asc' },
  });
const allDone = (count: number) =>
  eventually(async () => (await systemJobs()).length === count, { withinMs: 60_000 });

it('keeps what is to be kept, once an hour whatever the number of workers, and makes up for an hour that was missed', async () => {
  const output = Buffer.alloc(MIB, 'line\n');
  const [old, recent] = [await ended(40, output), await ended(2, output)];
  const { store } = testArtifacts(test, join(home, 'artifacts'));
  const expired = await makeArtifact(test, await makeVm(test.db, caller), caller.userId, {
    expiresAt: new Date(0),
  });
  await store.put(expired.id, Buffer.from('text'));

  await Promise.all([startWorker(), startWorker()]);
  await allDone(KINDS.length);
  await Promise.all(workers.map((worker) => worker.get(SystemJobs).submit()));
  const done = await systemJobs();
  expect(done.map(({ kind, state }) => [kind, state])).toEqual(KINDS.map((kind) => [kind, 'succeeded']));
  expect(await test.db.job.count({ where: { projectId: SYSTEM_ID } })).toBe(KINDS.length);

  expect(await test.db.job.count({ where: { id: old } })).toBe(0);
  expect(await test.db.jobLogChunk.count()).toBe(0);
  expect(readdirSync(join(home, 'artifacts'))).toEqual(['logs']);
  const logs = testArtifacts(test, join(home, 'artifacts/logs')).store;
  const log = new JobLog(test.db, new LogArchive(test.db, logs));
  expect((await log.read(recent, 'stdout', MIB - 96, 95)).data.toString()).toBe('line\n'.repeat(19));

  // As if that had been in the hour before.
  await test.db
    .$executeRaw`UPDATE jobs SET idempotency_key = idempotency_key || ' before' WHERE project_id = ${SYSTEM_ID}::uuid`;
  await ended(2, output);
  await workers[0]!.get(SystemJobs).submit();
  await allDone(2 * KINDS.length);
  expect(await test.db.jobLogChunk.count()).toBe(0);
});

it('is handed over by a worker that goes away, and goes on where it was', async () => {
  const jobId = await ended(2, randomBytes(20 * MIB));
  let first: INestApplicationContext;
  let drained: Promise<void>;
  await test.db.$transaction(
    async (tx) => {
      // It cannot finish its first piece.
      await tx.$executeRaw`SELECT FROM job_log_streams WHERE job_id = ${jobId}::uuid FOR UPDATE`;
      first = await startWorker();
      const logs = join(home, 'artifacts/logs');
      await eventually(() => existsSync(logs) && readdirSync(logs).length > 0, { withinMs: 60_000 });
      drained = first.get(JobRunner).beforeApplicationShutdown();
    },
    { timeout: 120_000 },
  );
  await drained!;
  expect(await test.db.jobLogArchive.count({ where: { jobId } })).toBeLessThan(2);
  await startWorker();
  await allDone(KINDS.length);
  const [archiving] = await systemJobs();
  expect(archiving).toMatchObject({ kind: 'system.archive_logs', state: 'succeeded', attempt: 2 });
  expect(await test.db.jobLogArchive.count({ where: { jobId } })).toBe(2);
  expect(await test.db.jobLogChunk.count({ where: { jobId } })).toBe(0);
});

it('does not begin a kind anew before it has ended', async () => {
  await ended(2, Buffer.alloc(MIB));
  const worker = await startWorker();
  await allDone(KINDS.length);
  await test.db.$executeRaw`
    UPDATE jobs SET idempotency_key = NULL WHERE project_id = ${SYSTEM_ID}::uuid`;
  const [first] = await systemJobs();
  await test.db.job.create({
    data: {
      ...({ kind: first!.kind, scope: first!.scope, lane: 'bulk', payload: {}, runSeconds: 3_600 } as const),
      ...{ id: newId(), projectId: SYSTEM_ID, userId: SYSTEM_ID, state: 'awaiting_input' },
      deadlineAt: new Date(Date.now() + 3_600_000),
    },
  });
  await worker.get(SystemJobs).submit();
  await allDone(2 * KINDS.length - 1);
});

it('is shown to staff and audited, and is of no tenant', async () => {
  const api = await startTestApi(test.url);
  await startWorker();
  await allDone(KINDS.length);
  const { token } = await makeStaff(test);
  const staff = async (path: string) => (await rest(api.port, token, 'GET', `/admin/v1${path}`)).json;
  const { items } = await staff('/jobs');
  expect(items.map(({ kind }: Job) => kind).sort()).toEqual(KINDS);
  for (const { id: jobId } of items)
    expect(
      await test.db.auditEvent.findMany({
        where: { jobId },
        orderBy: { id: 'asc' },
        select: { event: true, result: true },
      }),
    ).toEqual([
      { event: 'job.submitted', result: 'ok' },
      { event: 'job.finished', result: 'succeeded' },
    ]);
  expect((await staff('/projects')).items.map(({ id }: { id: string }) => id)).not.toContain(SYSTEM_ID);
  await expect(
    test.db.projectMember.create({ data: { projectId: SYSTEM_ID, userId: caller.userId, role: 'viewer' } }),
  ).rejects.toThrow();
  await api.close();
});
