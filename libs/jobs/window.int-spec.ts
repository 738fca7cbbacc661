import type { Caller } from '@longhaul/access';
import { setSwitch } from '@longhaul/access';
import { newId, type Job } from '@longhaul/persistence';
import { makeUser, makeVm, testDatabase, type TestDatabase } from '../../test/support/database.js';
import { HandWorker } from '../../test/support/hand-worker.js';
import { work } from '../../test/support/work.js';
import { JobDelivery, Jobs, Recovery, type Delivery } from './index.js';

const command = { ...work, name: 'test.command', exec: true as const };
const question = { message: 'Which?', schema: { type: 'object' as const, properties: {} } };

/** Keeps what it was given. What the queues do with it is in the contract of job-queue. */
class Sent extends JobDelivery {
  all: Delivery[] = [];
  override async deliver(delivery: Delivery) {
    this.all.push(delivery);
  }
  override async ping() {}
}

let test: TestDatabase;
let sent: Sent;
let jobs: Jobs;
let recovery: Recovery;
/** Its deliveries are lost, as those of a worker that is killed as soon as it has committed. */
let worker: HandWorker;
let caller: Caller;

beforeAll(async () => {
  test = await testDatabase();
  worker = new HandWorker(test);
});
afterAll(() => test.drop());
beforeEach(async () => {
  // Jobs of other tests are not to be found by sweeps.
  await test.db.$executeRaw`TRUNCATE jobs CASCADE`;
  sent = new Sent();
  jobs = new Jobs(test.db, test.audit, sent, test.changes);
  recovery = new Recovery(test.db, jobs);
  ({ caller } = await makeUser(test.db));
  await limit({ concurrency: 3 });
});

const limit = (data: { concurrency?: number; liveJobLimit?: number }) =>
  test.db.project.update({ where: { id: caller.projectIds[0]! }, data });
const submit = (more: object = {}) =>
  jobs.submit({ kind: work, payload: {}, by: caller, projectId: caller.projectIds[0]!, ...more });
/** One after the other, so that there is an order. */
async function submitMany(count: number, more: object = {}): Promise<Job[]> {
  const made: Job[] = [];
  for (let n = 0; n < count; n++) made.push(await submit(more));
  return made;
}
const stored = ({ id }: Job) => test.db.job.findUniqueOrThrow({ where: { id } });
const inWindow = () =>
  test.db.job.count({ where: { place: 'window', state: { in: ['queued', 'running'] } } });
/** What was delivered since the last look: the number of the job, and its priority. */
const delivered = (made: Job[]) =>
  sent.all
    .splice(0)
    .map(({ jobId, priority }) => [made.findIndex(({ id }) => id === jobId), priority] as const);
const past = (job: Job, column: 'leaseUntil' | 'deadlineAt' | 'redeliverAt') =>
  test.db.job.update({ where: { id: job.id }, data: { [column]: new Date(Date.now() - 1000) } });

it('delivers as many of a project as its window takes, each behind those before it, and holds back the rest', async () => {
  const made = await submitMany(5);
  const other = await makeUser(test.db);
  made.push(await submit({ by: other.caller, projectId: other.caller.projectIds[0] }));
  made.push(await submit({ lane: 'interactive' }));
  expect(delivered(made)).toEqual([
    [0, 1],
    [1, 2],
    [2, 3],
    [5, 1],
    [6, 1],
  ]);
});

it.each<[string, (job: Job) => Promise<unknown>]>([
  ['its end', async (job) => worker.finish(await worker.claim(job.id), { state: 'succeeded' })],
  ['a cancel', (job) => jobs.cancel(job.id, {})],
  ['a question', async (job) => worker.ask(await worker.claim(job.id), { question })],
  ['its deadline', async (job) => (await past(job, 'deadlineAt')) && recovery.sweep()],
])('lets in the one that has waited longest for each that leaves: by %s', async (_how, leave) => {
  const made = await submitMany(5);
  expect((await stored(made[3]!)).place).toBe('held');
  await leave(made[1]!);
  expect(await stored(made[3]!)).toMatchObject({ place: 'window', priority: 3 });
  expect((await stored(made[4]!)).place).toBe('held');
});

it('lets in one for one, whatever races', async () => {
  await limit({ concurrency: 20 });
  const made = await submitMany(70);
  const refs = await Promise.all(made.slice(0, 20).map(({ id }) => worker.claim(id)));
  const ends = refs.map((ref) => worker.finish(ref, { state: 'succeeded' }));
  await Promise.all([...ends, ...made.slice(60).map(({ id }) => jobs.cancel(id, {})), recovery.sweep()]);
  expect(await inWindow()).toBe(20);
});

it('is passed by no more racing submissions than there are connections, and shrinks again', async () => {
  const made = await Promise.all(Array.from({ length: 60 }, () => submit()));
  const passed = await inWindow();
  expect(passed).toBeGreaterThanOrEqual(3);
  expect(passed).toBeLessThan(3 + test.db.options.DATABASE_POOL);
  const early = [];
  for (const job of made) if ((await stored(job)).place === 'window') early.push(job);
  for (const { id } of early) await jobs.cancel(id, {});
  expect(await inWindow()).toBe(3);
});

it('loses nothing when the worker is killed after the end that made room', async () => {
  const made = await submitMany(4);
  await worker.finish(await worker.claim(made[0]!.id), { state: 'succeeded' });
  expect(delivered(made)).toEqual([
    [0, 1],
    [1, 2],
    [2, 3],
  ]);
  await past(made[3]!, 'redeliverAt');
  await recovery.sweep();
  expect(delivered(made)).toEqual([[3, 3]]);
});

it('is filled by recovery when it has grown, by one of many that sweep, and not for new ones first', async () => {
  const made = await submitMany(9);
  await limit({ concurrency: 7 });
  made.push(await submit());
  expect((await stored(made[9]!)).place).toBe('held');
  sent.all = [];
  await Promise.all([recovery.sweep(), recovery.sweep(), recovery.sweep()]);
  expect(delivered(made).sort()).toEqual([
    [3, 4],
    [4, 5],
    [5, 6],
    [6, 7],
  ]);
});

it('is found for every project and queue that something is held back from', async () => {
  await limit({ concurrency: 1 });
  const hosts = ['a', 'b', 'c'];
  const vms = await Promise.all(hosts.map((host) => makeVm(test.db, caller, { host })));
  for (const vm of vms) await submitMany(3, { vm });
  await submitMany(3);
  await limit({ concurrency: 2 });
  await recovery.sweep();
  expect(await inWindow()).toBe(8);
});

it('does not let a stray delivery begin what is held back', async () => {
  const made = await submitMany(4);
  await expect(worker.claim(made[3]!.id)).rejects.toThrow('nothing to claim');
});

it('takes back at once, before all others, what had begun before', async () => {
  const made = await submitMany(4);
  const ref = await worker.claim(made[0]!.id);
  await worker.ask(ref, { question });
  sent.all = [];
  await jobs.answer(made[0]!.id, { question: { action: 'decline' } }, caller);
  expect(await inWindow()).toBe(4);
  await worker.claim(made[1]!.id);
  await past(made[1]!, 'leaseUntil');
  await recovery.sweep();
  expect(delivered(made)).toEqual([
    [0, 0],
    [1, 0],
  ]);
});

it('moves what has waited long to the front of its project when it is delivered again', async () => {
  const made = await submitMany(3);
  await worker.finish(await worker.claim(made[0]!.id), { state: 'succeeded' });
  sent.all = [];
  await past(made[2]!, 'redeliverAt');
  await recovery.sweep();
  expect(delivered(made)).toEqual([[2, 2]]);
});

it('does not let commands that are switched off keep anything else from its turn', async () => {
  const vm = await makeVm(test.db, caller);
  const made = await submitMany(6, { kind: command, vm });
  made.push(await submit({ vm }));
  await setSwitch(test.db, 'exec', true, { actor: 'test', reason: 'incident' });
  for (const { id } of made.slice(0, 6)) await expect(worker.claim(id)).rejects.toThrow('nothing to claim');
  await worker.claim(made[6]!.id);
  await setSwitch(test.db, 'exec', false, { actor: 'test' });
  await jobs.redeliverCommands();
  sent.all = [];
  await recovery.sweep();
  expect(delivered(made).sort()).toEqual([
    [0, 2],
    [1, 3],
  ]);
});

describe('limits', () => {
  it('tells when to try again, later the more there is to do, and is passed by no more than race', async () => {
    await limit({ liveJobLimit: 10 });
    const results = await Promise.allSettled(Array.from({ length: 60 }, () => submit()));
    const refused = results.filter(({ status }) => status === 'rejected');
    expect(60 - refused.length).toBeGreaterThanOrEqual(10);
    expect(60 - refused.length).toBeLessThan(10 + test.db.options.DATABASE_POOL);
    const error = { code: 'rate_limited', details: { retry_after: 5 } };
    expect(refused[0]).toMatchObject({ reason: error });
    await limit({ liveJobLimit: 300 });
    await Promise.all(Array.from({ length: 300 - (await test.db.job.count()) }, () => submit()));
    await expect(submit()).rejects.toMatchObject({ ...error, details: { retry_after: 8 } });
  });

  it('holds for all projects together, but not for the same request again', async () => {
    const limited = new Jobs(test.db, test.audit, sent, test.changes, { QUEUE_LIMIT: 2 });
    const submission = { kind: work, payload: {}, by: caller, projectId: caller.projectIds[0]! };
    await submit();
    const other = (await makeUser(test.db)).caller;
    const theirs = { ...submission, by: other, projectId: other.projectIds[0]!, idempotencyKey: newId() };
    const { id } = await limited.submit(theirs);
    await expect(limited.submit(submission)).rejects.toMatchObject({
      code: 'rate_limited',
      details: { retry_after: 5 },
    });
    expect((await limited.submit(theirs)).id).toBe(id);
  });
});
