import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Caller } from '@longhaul/access';
import { parseConfig } from '@longhaul/config';
import { JobLog } from '@longhaul/job-log';
import { Attempts, Jobs, defineJobKind, type Answer, type Question } from '@longhaul/jobs';
import type { Job } from '@longhaul/persistence';
import { Secrets, StoredSecrets } from '@longhaul/secrets';
import { correlation, setLogLevel } from '@longhaul/telemetry';
import { Handlers, defineHandler, type JobContext } from '@longhaul/toolsets/handler';
import { z } from 'zod';
import { TEST_SECRETS_KEYS, makeUser, testDatabase, type TestDatabase } from '../../test/support/database.js';
import { testArtifacts } from '../../test/support/artifacts.js';
import { NoDelivery } from '../../test/support/hand-worker.js';
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
function runner(work: (context: JobContext) => Promise<unknown>): JobRunner {
  const config = parseConfig(workerConfig, { DATABASE_URL: test.url, LONGHAUL_HOME: home });
  const handler = defineHandler({
    kind,
    run: async (context) => ({ state: 'succeeded', result: { answers: await work(context) } }),
  });
  const { db, changes } = test;
  const attempts = new Attempts(db, jobs, config);
  const { artifacts } = testArtifacts(test, home);
  const secrets = new StoredSecrets(db, new Secrets({ SECRETS_KEYS: TEST_SECRETS_KEYS }));
  const providers = new VmProviders(config, db, secrets);
  const kinds = new Handlers([handler]);
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

it('says in its logs which trace a job belongs to', async () => {
  const traceId = 'a1'.repeat(16);
  const job = await submit({ traceparent: `00-${traceId}-${'b2'.repeat(8)}-01` });
  let seen: unknown;
  await runner(async () => (seen = correlation.getStore())).consume(job.id);
  expect(seen).toMatchObject({ jobId: job.id, attempt: 1, traceId });
});
