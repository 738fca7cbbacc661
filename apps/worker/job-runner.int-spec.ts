import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Caller } from '@longhaul/access';
import { parseConfig } from '@longhaul/config';
import { JobLog } from '@longhaul/job-log';
import { Attempts, Jobs, defineJobKind, type Answer, type Question } from '@longhaul/jobs';
import { Database, type Job } from '@longhaul/persistence';
import { Secrets, StoredSecrets } from '@longhaul/secrets';
import { correlation, setLogLevel } from '@longhaul/telemetry';
import { Handlers, defineHandler, type JobContext, type JobHandler } from '@longhaul/toolsets/handler';
import { z } from 'zod';
import { TEST_SECRETS_KEYS, makeUser, testDatabase, type TestDatabase } from '../../test/support/database.js';
import { testArtifacts } from '../../test/support/artifacts.js';
import { eventually } from '../../test/support/eventually.js';
import { NoDelivery } from '../../test/support/hand-worker.js';
import { Relay } from '../../test/support/relay.js';
import { workerConfig } from './config.js';
import { JobRunner } from './job-runner.js';
import { VmProviders } from './vm-providers.js';

const kind = defineJobKind({
  name: 'test.work',
  version: 1,
  payload: z.strictObject({}),
  result: z.strictObject({ answers: z.unknown() }),
  scope: 'vms:exec',
  lane: 'bulk',
  queueSeconds: 60,
  runSeconds: () => 60,
});
const sure: Question = {
  message: 'Sure?',
  schema: { type: 'object', properties: { sure: { type: 'boolean' } } },
};
const yes: Answer = { action: 'accept', content: { sure: true } };

let test: TestDatabase;
let home: string;
let jobs: Jobs;
let caller: Caller;
beforeAll(async () => {
  setLogLevel('silent');
  test = await testDatabase();
  home = await mkdtemp(join(tmpdir(), 'runner-'));
  jobs = new Jobs(test.db, test.audit, new NoDelivery(), test.changes);
  ({ caller } = await makeUser(test.db));
});
afterAll(async () => {
  await test.drop();
  await rm(home, { recursive: true });
});

/** A worker of its own that does `work` with jobs that it is handed. */
const runner = (
  work: (context: JobContext) => Promise<unknown>,
  { goesOn, ...options }: { goesOn?: true; DRAIN_SECONDS?: string; db?: Database } = {},
) => {
  const handler = defineHandler({
    kind,
    goesOn,
    run: async (context) => ({ state: 'succeeded', result: { answers: await work(context) } }),
  });
  return runnerOf([handler], options);
};

function runnerOf(
  handlers: JobHandler[],
  { db = test.db, DRAIN_SECONDS = '600' }: { DRAIN_SECONDS?: string; db?: Database } = {},
): JobRunner {
  const config = parseConfig(workerConfig, { DATABASE_URL: test.url, LONGHAUL_HOME: home, DRAIN_SECONDS });
  const { changes } = test;
  const attempts = new Attempts(db, jobs, config);
  const { artifacts } = testArtifacts(test, home);
  const secrets = new StoredSecrets(db, new Secrets({ SECRETS_KEYS: TEST_SECRETS_KEYS }));
  const providers = new VmProviders(config, db, secrets);
  const kinds = new Handlers(handlers);
  return new JobRunner(config, db, attempts, new JobLog(db), changes, providers, kinds, artifacts, secrets);
}

const submit = (more: object = {}) =>
  jobs.submit({ kind, payload: {}, by: caller, projectId: caller.projectIds[0]!, ...more });
const stored = ({ id }: Job) => test.db.job.findUniqueOrThrow({ where: { id } });

it('ends an attempt that asks, leaves the job alone, and begins anew with the answers elsewhere', async () => {
  const job = await submit();
  const asks = ({ ask }: JobContext) => ask({ sure }, 60);
  await runner(asks).consume(job.id);
  expect(await stored(job)).toMatchObject({ state: 'awaiting_input', attempt: 1, leaseUntil: null });

  await jobs.answer(job.id, { sure: yes }, caller);
  await runner(asks).consume(job.id);
  expect(await stored(job)).toMatchObject({
    state: 'succeeded',
    attempt: 2,
    result: { answers: { sure: yes } },
  });
});

it('does not let a handler end the job after its question', async () => {
  const job = await submit();
  await runner(({ ask }) => ask({ sure }, 60).catch(() => 'never mind')).consume(job.id);
  expect(await stored(job)).toMatchObject({ state: 'awaiting_input', result: null });
});

it('sends the latest progress with the heartbeat, its message bounded and without secrets', async () => {
  const job = await submit();
  let seen: unknown;
  const worker: JobRunner = runner(async ({ progress }) => {
    progress({ progress: 1 });
    progress({ progress: 2, total: 3, message: `a\0bc Bearer abcdef ${'\u{1f600}'.repeat(300)}` });
    await worker.heartbeat();
    seen = (await stored(job)).progress;
  });
  await worker.consume(job.id);
  expect(seen).toMatchObject({
    progress: 2,
    total: 3,
    message: expect.stringMatching(/^a\ufffdbc Bearer \[redacted\] \u{1f600}+\ufffd?$/u),
  });
  expect((seen as { message: string }).message.length).toBeLessThanOrEqual(256);
});

it('keeps a delivery in hand while the database is away', async () => {
  const url = new URL(test.url);
  const relay = await Relay.open(Number(url.port));
  url.port = String(relay.port);
  const db = new Database({ DATABASE_URL: url.href, DATABASE_POOL: 2 });
  try {
    const job = await submit();
    relay.break('cut');
    const consumed = runner(async () => 'done', { db }).consume(job.id);
    await eventually(() => relay.refused > 1);
    relay.heal();
    await consumed;
    expect(await stored(job)).toMatchObject({ state: 'succeeded', attempt: 1 });
  } finally {
    await db.onApplicationShutdown();
    relay.close();
  }
});

it('gives no job up for what was away, however many attempts that takes', async () => {
  const job = await submit();
  const away = Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' });
  const { id } = job;
  for (let attempt = 1; attempt <= 7; attempt++) {
    await runner(() => Promise.reject(away)).consume(id);
    expect(await stored(job)).toMatchObject({ state: 'running', attempt });
    // As recovery does once its lease is over.
    await test.db.job.update({ where: { id }, data: { state: 'queued' } });
  }
  await runner(async () => 'done').consume(id);
  expect(await stored(job)).toMatchObject({ state: 'succeeded', attempt: 8 });
});

it('does not end a job whose log a crash of the database has shortened, but has another attempt store it again', async () => {
  const job = await submit();
  const prints = defineHandler({
    kind,
    run: async ({ openLog, job: { attempt } }) => {
      const log = await openLog('stderr');
      if (log.size === 0) await log.write(Buffer.from('said'));
      // The effect of a crash before it was on the disk, as logs are committed asynchronously.
      if (attempt === 1) {
        await test.db.$executeRaw`DELETE FROM job_log_chunks WHERE job_id = ${job.id}::uuid`;
        await test.db.$executeRaw`UPDATE job_log_streams SET size = 0 WHERE job_id = ${job.id}::uuid`;
      }
      return { state: 'succeeded', result: { answers: null }, log: { stdout: 0, stderr: log.size } };
    },
  });
  await runnerOf([prints]).consume(job.id);
  expect(await stored(job)).toMatchObject({ state: 'running', attempt: 1, finishedAt: null });
  // As recovery does once its lease is over.
  await test.db.job.update({ where: { id: job.id }, data: { state: 'queued' } });
  await runnerOf([prints]).consume(job.id);
  expect(await stored(job)).toMatchObject({ state: 'succeeded', attempt: 2 });
  expect((await new JobLog(test.db).read(job.id, 'stderr', 0, 100)).data.toString()).toBe('said');
});

it('says in its logs which trace a job belongs to', async () => {
  const traceId = 'a1'.repeat(16);
  const job = await submit({ traceparent: `00-${traceId}-${'b2'.repeat(8)}-01` });
  let seen: unknown;
  await runner(async () => (seen = correlation.getStore())).consume(job.id);
  expect(seen).toMatchObject({ jobId: job.id, attempt: 1, traceId });
});

describe('beside workers of another version', () => {
  const second = defineJobKind({
    ...kind,
    version: 2,
    payload: z.union([
      z.strictObject({ name: z.string() }),
      z.strictObject({}).transform(() => ({ name: '-' })),
    ]),
    runSeconds: () => 60,
  });
  const older = (work = async (): Promise<unknown> => 'old') => runner(work);
  const newer = (work = async (name: string): Promise<unknown> => name) =>
    runnerOf([
      defineHandler({
        kind: second,
        run: async (_context, { name }) => ({ state: 'succeeded', result: { answers: await work(name) } }),
      }),
    ]);
  const succeeded = (answers: unknown) => ({ state: 'succeeded', attempt: 1, result: { answers } });

  it.each([
    ['a kind', () => runnerOf([])],
    ['a version', () => older()],
  ])('leaves a job of %s that it does not know as it is, for one that does', async (_what, unable) => {
    const job = await submit({ kind: second, payload: { name: 'a' } });
    await unable().consume(job.id);
    const { redeliverAt, ...left } = await stored(job);
    expect({ ...left, redeliverAt: null }).toEqual({ ...job, redeliverAt: null });
    expect(redeliverAt!.getTime()).toBeLessThanOrEqual(job.createdAt.getTime() + 10_000);
    await newer().consume(job.id);
    expect(await stored(job)).toMatchObject(succeeded('a'));
  });

  it('offers such a job again every few seconds, however often it was refused', async () => {
    const job = await submit({ kind: second, payload: { name: 'a' } });
    const { id } = job;
    await test.db.job.update({
      where: { id },
      data: { delivery: 9, redeliverAt: new Date(Date.now() + 60_000) },
    });
    await older().consume(id);
    expect((await stored(job)).redeliverAt!.getTime()).toBeLessThan(Date.now() + 10_000);
  });

  it('runs a job of the version before, whose payload its kind still reads', async () => {
    const job = await submit();
    await newer().consume(job.id);
    expect(await stored(job)).toMatchObject(succeeded('-'));
  });

  it('does not go on with what a newer one has begun, whose checkpoint it could not read', async () => {
    const job = await submit();
    await newer(() => Promise.reject(new Error('for another attempt'))).consume(job.id);
    // As recovery does once its lease is over.
    await test.db.job.update({ where: { id: job.id }, data: { state: 'queued' } });
    await older().consume(job.id);
    expect(await stored(job)).toMatchObject({ state: 'queued', attempt: 1 });
    await newer().consume(job.id);
    expect(await stored(job)).toMatchObject({ state: 'succeeded', attempt: 2 });
  });
});

describe('a worker that drains', () => {
  const untilStopped = async ({ stop }: JobContext) => {
    await eventually(() => stop.aborted);
    throw new Error('cut short');
  };
  const isRunning = (job: Job) => eventually(async () => (await stored(job)).state === 'running');
  const attemptsOf = ({ id }: Job) => test.db.jobAttempt.findMany({ where: { jobId: id } });

  it('hands over at once what goes on without it, lets all else end, and takes nothing more', async () => {
    const [command, work, late] = [await submit(), await submit(), await submit()];
    let end = () => {};
    const ended = new Promise<void>((resolve) => (end = resolve));
    const handler = (context: JobContext) => (context.job.id === work.id ? ended : untilStopped(context));
    const [following, working] = [runner(handler, { goesOn: true }), runner(handler)];
    const consumed = [following.consume(command.id), working.consume(work.id)];
    await Promise.all([command, work].map(isRunning));

    const drained = [following, working].map((worker) => worker.beforeApplicationShutdown());
    await drained[0];
    expect(await stored(command)).toMatchObject({
      state: 'queued',
      delivery: 2,
      priority: 0,
      leaseUntil: null,
    });
    expect(await attemptsOf(command)).toMatchObject([{ outcome: 'handed_over', endedAt: expect.any(Date) }]);
    await working.consume(late.id);
    expect(await stored(late)).toMatchObject({ state: 'queued', attempt: 0 });
    expect(await stored(work)).toMatchObject({ state: 'running' });

    end();
    await Promise.all([...drained, ...consumed]);
    expect(await stored(work)).toMatchObject({ state: 'succeeded' });
    await runner(async () => 'elsewhere').consume(command.id);
    expect(await stored(command)).toMatchObject({ state: 'succeeded', attempt: 2 });
  });

  it('hands over what has not ended in time, which is no failure of the job', async () => {
    const job = await submit();
    for (let attempt = 1; attempt <= 6; attempt++) {
      const worker = runner(untilStopped, { DRAIN_SECONDS: '0' });
      const consumed = worker.consume(job.id);
      await isRunning(job);
      await worker.beforeApplicationShutdown();
      await consumed;
      expect(await stored(job)).toMatchObject({ state: 'queued', attempt });
    }
    await runner(() => Promise.reject(new Error('for once'))).consume(job.id);
    expect(await stored(job)).toMatchObject({ state: 'running', attempt: 7 });
  });
});
