import { newId, type Job, type Vm } from '@longhaul/persistence';
import type { Caller } from '@longhaul/access';
import { BullDelivery, QueueConnection } from '@longhaul/job-queue';
import { Queue } from 'bullmq';
import { z } from 'zod';
import { makeUser, makeVm, testDatabase, type TestDatabase } from '../../test/support/database.js';
import { eventually } from '../../test/support/eventually.js';
import {
  Attempts,
  AwaitingInput,
  FencedError,
  Jobs,
  Recovery,
  defineJobKind,
  isFinal,
  type Progress,
} from './index.js';

const kind = defineJobKind({
  name: 'test.command',
  version: 1,
  payload: z.strictObject({ n: z.int() }),
  result: z.strictObject({}),
  scope: 'vms:exec',
  slot: 'command',
  lane: 'bulk',
  queueSeconds: 60,
  runSeconds: () => 60,
});
const question = { message: 'Which?', schema: { type: 'object' as const, properties: {} } };
const free = { ...kind, name: 'test.free', slot: undefined };
const files = { ...kind, name: 'test.files', slot: 'files' as const };
const alone = { ...kind, name: 'test.alone', slot: 'lifecycle' as const, alone: true as const };

let test: TestDatabase;
let connection: QueueConnection;
let delivery: BullDelivery;
let jobs: Jobs;
let attempts: Attempts;
let recovery: Recovery;
let caller: Caller;
let vm: Vm;

beforeAll(async () => {
  test = await testDatabase();
  connection = await QueueConnection.open({ DATABASE_URL: test.url });
  delivery = new BullDelivery(connection);
  jobs = new Jobs(test.db, test.audit, delivery, test.changes);
  attempts = new Attempts(test.db, jobs, { JOB_LEASE_SECONDS: 30 });
  recovery = new Recovery(test.db, jobs);
});
afterAll(async () => {
  await delivery.onApplicationShutdown();
  await test.drop();
});

beforeEach(async () => {
  ({ caller } = await makeUser(test.db));
  vm = await makeVm(test.db, caller, { host: newId() });
});

const submission = (more: object = {}) => ({
  kind,
  payload: { n: 1 },
  by: { userId: caller.userId, tokenId: caller.tokenId },
  projectId: vm.projectId,
  vm,
  ...more,
});
const submit = (more: object = {}) => jobs.submit(submission(more));
const claim = async (job: Job) => (await attempts.claim(job.id, 'worker-1'))!;
const refOf = (job: Job) => ({ jobId: job.id, attempt: job.attempt });
const stored = (job: Job) => test.db.job.findUniqueOrThrow({ where: { id: job.id } });
/** Moves a time of the job into the past, as waiting would. */
const past = (job: Job, column: 'leaseUntil' | 'deadlineAt' | 'redeliverAt') =>
  test.db.job.update({ where: { id: job.id }, data: { [column]: new Date(Date.now() - 1000) } });
const filter = () => ({ projectIds: caller.projectIds, scopes: caller.scopes });
/** What lies in the real queue of the VM's host, oldest first. */
async function delivered(): Promise<string[]> {
  const queue = new Queue(`bulk.${vm.host}`, { connection: connection.forWorkers() });
  const waiting = await queue.getJobs(['waiting', 'prioritized']);
  await queue.close();
  return waiting.sort((a, b) => a.timestamp - b.timestamp).map(({ id }) => id!);
}
const events = async (job: Job) =>
  (await test.db.auditEvent.findMany({ where: { jobId: job.id }, orderBy: { id: 'asc' } })).map((e) => [
    e.event,
    e.result,
  ]);

describe('submit', () => {
  it('stores job and audit event, then delivers to the queue of the host', async () => {
    const traceparent = `00-${'a1'.repeat(16)}-${'b2'.repeat(8)}-01`;
    const job = await submit({ tool: 'a_tool', traceparent });
    expect(job).toMatchObject({
      state: 'queued',
      attempt: 0,
      slot: 'command',
      slotIndex: 0,
      scope: 'vms:exec',
      tool: 'a_tool',
      traceparent,
    });
    expect(await delivered()).toEqual([`${job.id}-1`]);
    expect(await events(job)).toEqual([['job.submitted', 'ok']]);
  });

  it('succeeds with the queue away; recovery delivers later', async () => {
    const unreachable = { DATABASE_URL: test.url, QUEUE_URL: 'redis://127.0.0.1:1' };
    const nowhere = new BullDelivery(await QueueConnection.open(unreachable));
    const job = await new Jobs(test.db, test.audit, nowhere, test.changes).submit(submission());
    await nowhere.onApplicationShutdown();
    expect(await delivered()).toEqual([]);
    await past(job, 'redeliverAt');
    await recovery.sweep();
    expect(await delivered()).toEqual([`${job.id}-2`]);
  });

  it('gives a slot to one job at a time and names its holder', async () => {
    const first = await submit();
    await expect(submit()).rejects.toMatchObject({
      code: 'vm_command_in_progress',
      details: { job_id: first.id },
    });
    await expect(jobs.cancel(first.id, {} as never)).resolves.toMatchObject({ state: 'cancelled' });
    await expect(submit()).resolves.toMatchObject({ slotIndex: 0 });
  });

  it('lets no two of many racing submissions have the same slot', async () => {
    const wide = { ...vm, commandSlots: 3 };
    const results = await Promise.allSettled(Array.from({ length: 12 }, () => submit({ vm: wide })));
    const won = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value.slotIndex] : []));
    expect(won.sort()).toEqual([0, 1, 2]);
    for (const result of results) {
      if (result.status === 'rejected')
        expect(result.reason).toMatchObject({ code: 'vm_command_in_progress' });
    }
  });

  it('stores nothing beside a job that must be alone, nor that beside anything', async () => {
    const command = await submit();
    const refused = { code: 'vm_command_in_progress', details: { job_id: command.id } };
    await expect(submit({ kind: alone })).rejects.toMatchObject(refused);
    await expect(jobs.requireSlot(vm, 'lifecycle', true)).rejects.toMatchObject(refused);
    await jobs.requireSlot(vm, 'lifecycle');
    await jobs.cancel(command.id, {});
    const lonely = await submit({ kind: alone });
    const busy = { code: 'vm_busy', details: { job_id: lonely.id } };
    for (const other of [kind, files, alone])
      await expect(submit({ kind: other })).rejects.toMatchObject(busy);
    await submit({ kind: free });
    const elsewhere = await makeVm(test.db, caller);
    await submit({ vm: elsewhere });
  });

  it('lets only one of racing submissions in where one must be alone', async () => {
    for (let round = 0; round < 10; round++) {
      const target = await makeVm(test.db, caller);
      const kinds = [kind, alone, files, alone, kind];
      const results = await Promise.allSettled(kinds.map((each) => submit({ kind: each, vm: target })));
      const won = kinds.filter((_kind, index) => results[index]!.status === 'fulfilled');
      expect(won.length).toBeGreaterThan(0);
      if (won.includes(alone)) expect(won).toEqual([alone]);
    }
  });

  it('does what belongs to the job with it or not at all', async () => {
    const made = (id: string) => ({
      vm: { id, host: vm.host, commandSlots: 1 },
      isNewVm: true,
      alongside: async () => {
        if (id === vm.id) throw new Error('no');
      },
    });
    const before = await test.db.job.count();
    await expect(submit(made(vm.id))).rejects.toThrow('no');
    expect(await test.db.job.count()).toBe(before);
    const [one, again] = [newId(), newId()].map((id) => ({ ...made(id), idempotencyKey: 'new' }));
    expect((await submit(one)).id).toBe((await submit(again)).id);
  });

  it('answers the same job for the same idempotency key, also while it holds the slot and after its end', async () => {
    const more = { idempotencyKey: 'k-1' };
    const racing = await Promise.all([submit(more), submit(more), submit(more)]);
    expect(new Set(racing.map((job) => job.id)).size).toBe(1);
    await jobs.cancel(racing[0].id, {} as never);
    expect((await submit(more)).id).toBe(racing[0].id);
    await expect(submit({ ...more, payload: { n: 2 } })).rejects.toMatchObject({
      code: 'idempotency_key_reused',
    });
    expect(await test.db.job.count({ where: { vmId: vm.id } })).toBe(1);
  });

  it('refuses a job beyond the limit of the project', async () => {
    await test.db.project.update({ where: { id: vm.projectId }, data: { liveJobLimit: 2 } });
    await submit({ kind: free });
    await submit({ kind: free });
    await expect(submit({ kind: free })).rejects.toMatchObject({
      code: 'rate_limited',
      details: { retry_after: 5 },
    });
  });
});

describe('attempts', () => {
  it('lets one of many claims win', async () => {
    const job = await submit();
    const claims = await Promise.all(
      Array.from({ length: 8 }, (_, n) => attempts.claim(job.id, `worker-${n}`)),
    );
    expect(claims.filter(Boolean)).toHaveLength(1);
    expect(await test.db.jobAttempt.count({ where: { jobId: job.id } })).toBe(1);
  });

  it('starts nothing whose time in the queue is over', async () => {
    const job = await submit();
    await past(job, 'deadlineAt');
    expect(await attempts.claim(job.id, 'worker-1')).toBeUndefined();
  });

  it('ends with result, audit and free slot in one, and never changes afterwards', async () => {
    const job = await claim(await submit());
    await attempts.finish(refOf(job), { state: 'succeeded', result: { ok: true } });
    expect(await stored(job)).toMatchObject({ state: 'succeeded', result: { ok: true }, leaseUntil: null });
    expect(await events(job)).toEqual([
      ['job.submitted', 'ok'],
      ['job.finished', 'succeeded'],
    ]);
    await expect(attempts.finish(refOf(job), { state: 'failed' })).rejects.toThrow(FencedError);
    await expect(test.db.job.update({ where: { id: job.id }, data: { state: 'queued' } })).rejects.toThrow();
    expect(await jobs.cancel(job.id, {} as never)).toMatchObject({
      state: 'succeeded',
      cancelRequestedAt: null,
    });
    await submit();
  });

  it('refuses every write of an attempt after a later one exists', async () => {
    const first = await claim(await submit());
    await recovery.beat([vm.host]);
    await past(first, 'leaseUntil');
    await recovery.sweep();
    const second = await claim(first);
    expect(second.attempt).toBe(2);
    const late = refOf(first);
    expect(await attempts.heartbeat([late])).toEqual(new Map());
    await expect(attempts.checkpoint(late, { step: 1 })).rejects.toThrow(FencedError);
    await expect(attempts.intend(late, 'dispatch')).rejects.toThrow(FencedError);
    await expect(attempts.ask(late, { a: question }, 60)).rejects.toThrow(FencedError);
    await expect(attempts.finish(late, { state: 'failed' })).rejects.toThrow(FencedError);
    expect(await stored(first)).toMatchObject({ state: 'running', attempt: 2 });
    expect(await attempts.heartbeat([refOf(second)])).toEqual(
      new Map([[second.id, { attempt: 2, cancelRequested: false }]]),
    );
  });

  it('hears of a cancel request by heartbeat, and its waiters by notification', async () => {
    const job = await claim(await submit());
    const waiting = jobs.wait(job.id, (seen) => seen.cancelRequestedAt !== null, 30_000);
    expect(await jobs.cancel(job.id, {} as never)).toMatchObject({ state: 'running' });
    expect((await waiting).cancelRequestedAt).not.toBeNull();
    expect((await attempts.heartbeat([refOf(job)])).get(job.id)).toMatchObject({ cancelRequested: true });
    expect(await events(job)).toContainEqual(['job.cancel_requested', 'running']);
  });

  it('keeps the slot and the checkpoint while it awaits an answer, and is delivered again with it', async () => {
    const first = await claim(await submit());
    await attempts.checkpoint(refOf(first), { step: 3 });
    await expect(attempts.ask(refOf(first), { a: question }, 60)).rejects.toThrow(AwaitingInput);
    await expect(submit()).rejects.toMatchObject({ code: 'vm_command_in_progress' });
    await jobs.answer(first.id, { a: { action: 'decline' } }, { userId: caller.userId });
    expect((await delivered()).at(-1)).toBe(`${first.id}-2`);
    expect(await claim(first)).toMatchObject({ attempt: 2, checkpoint: { step: 3 } });
  });

  it('stores progress with the heartbeat, which tells readers when it changed, and wakes nobody', async () => {
    const job = await claim(await submit());
    // Notifications keep their order: once one of later has come, no earlier one can.
    let woken = 0;
    let later = 0;
    const subscriptions = [test.changes.on(job.id, () => woken++)];
    const submitted = await submit({ kind: free });
    subscriptions.push(test.changes.on(submitted.id, () => later++));
    const other = await claim(submitted);
    await eventually(() => later > 0);
    woken = 0;
    const beat = (progress?: Progress) => attempts.heartbeat([{ ...refOf(job), progress }, refOf(other)]);
    const progress = { progress: 3, total: 60, message: '3 s, 0 B of output' };
    await beat(progress);
    const first = await stored(job);
    expect(first.progress).toEqual(progress);
    expect(first.updatedAt.getTime()).toBeGreaterThan(job.updatedAt.getTime());
    await beat(progress);
    await beat();
    expect(await stored(job)).toMatchObject({ progress, updatedAt: first.updatedAt });
    await beat({ ...progress, progress: 4 });
    expect((await stored(job)).updatedAt.getTime()).toBeGreaterThan(first.updatedAt.getTime());
    expect(await stored(other)).toMatchObject({ progress: null, updatedAt: other.updatedAt });
    await jobs.cancel(other.id, {} as never);
    await eventually(() => later > 1);
    expect(woken).toBe(0);
    subscriptions.forEach((unsubscribe) => unsubscribe());
  });
});

describe('recovery', () => {
  it('gives a lost attempt to the next worker only while somebody serves the host', async () => {
    const job = await claim(await submit());
    await past(job, 'leaseUntil');
    await recovery.sweep();
    expect(await stored(job)).toMatchObject({ state: 'running' });
    await recovery.beat([vm.host]);
    await Promise.all([recovery.sweep(), recovery.sweep(), recovery.sweep()]);
    expect(await stored(job)).toMatchObject({ state: 'queued', delivery: 2 });
    expect(await test.db.jobAttempt.findFirst({ where: { jobId: job.id } })).toMatchObject({
      outcome: 'lost',
    });
  });

  it('redelivers what nobody claimed, less and less often', async () => {
    const job = await submit();
    await past(job, 'redeliverAt');
    await recovery.sweep();
    await recovery.sweep();
    expect(await delivered()).toEqual([`${job.id}-1`, `${job.id}-2`]);
    expect((await stored(job)).redeliverAt!.getTime()).toBeGreaterThan(Date.now() + 4_000);
  });

  it('fails what waited too long, saying whether the host or only a free worker was missing', async () => {
    const job = await submit();
    await past(job, 'deadlineAt');
    await recovery.sweep();
    expect(await stored(job)).toMatchObject({ state: 'failed', error: { code: 'host_unreachable' } });
    const other = await submit();
    await past(other, 'deadlineAt');
    await recovery.beat([vm.host]);
    await recovery.sweep();
    expect(await stored(other)).toMatchObject({ state: 'failed', error: { code: 'queue_timeout' } });
    expect(await events(other)).toContainEqual(['job.finished', 'failed']);
  });

  it('fails a question that nobody answered', async () => {
    const job = await claim(await submit());
    await expect(attempts.ask(refOf(job), { a: question }, 60)).rejects.toThrow(AwaitingInput);
    await past(job, 'deadlineAt');
    await recovery.sweep();
    expect(await stored(job)).toMatchObject({ state: 'failed', error: { code: 'input_timeout' } });
  });

  it('calls unknown what ran past its deadline with nobody to ask, and quarantines the slot until it is released', async () => {
    const job = await claim(await submit());
    await attempts.intend(refOf(job), 'dispatch', newId());
    await past(job, 'leaseUntil');
    await past(job, 'deadlineAt');
    await recovery.sweep();
    expect(await stored(job)).toMatchObject({
      state: 'unknown',
      quarantined: true,
      error: { code: 'outcome_unknown' },
    });
    await expect(submit()).rejects.toMatchObject({
      code: 'vm_command_in_progress',
      details: { job_id: job.id },
    });
    expect(await recovery.takeQuarantined(['elsewhere'])).toBeUndefined();
    expect(await recovery.takeQuarantined([vm.host])).toMatchObject({ id: job.id });
    expect(await recovery.takeQuarantined([vm.host])).toBeUndefined();
    await recovery.release(job.id);
    await submit();
  });

  it('leaves what may have begun, and waits in the queue past its deadline, to a worker that can ask the guest', async () => {
    const job = await claim(await submit());
    await attempts.intend(refOf(job), 'dispatch', newId());
    await recovery.beat([vm.host]);
    await past(job, 'leaseUntil');
    await past(job, 'deadlineAt');
    await recovery.sweep();
    await recovery.sweep();
    expect(await stored(job)).toMatchObject({ state: 'queued' });
    const elsewhere = { host: `${vm.host}-silent` };
    await test.db.job.update({ where: { id: job.id }, data: elsewhere });
    await recovery.sweep();
    expect(await stored(job)).toMatchObject({ state: 'unknown', quarantined: true });
  });

  it('delivers what has begun before again every few seconds, however often that was lost', async () => {
    const job = await claim(await submit());
    await recovery.beat([vm.host]);
    await past(job, 'leaseUntil');
    await test.db.job.update({ where: { id: job.id }, data: { delivery: 9 } });
    await recovery.sweep();
    await past(job, 'redeliverAt');
    await recovery.sweep();
    expect((await stored(job)).redeliverAt!.getTime()).toBeLessThan(Date.now() + 10_000);
  });

  it('never cancels by itself what may have begun in the guest', async () => {
    const job = await claim(await submit());
    await attempts.intend(refOf(job), 'dispatch', newId());
    await recovery.beat([vm.host]);
    await past(job, 'leaseUntil');
    await recovery.sweep();
    expect(await jobs.cancel(job.id, {} as never)).toMatchObject({ state: 'queued' });
    expect((await claim(job)).cancelRequestedAt).not.toBeNull();
  });
});

describe('find, list and wait', () => {
  it('answers a foreign id like an absent one, and names a missing scope', async () => {
    const job = await submit();
    const absent = await jobs.find(newId(), filter()).catch((error) => error.toBody());
    const stranger = await makeUser(test.db);
    const theirs = { projectIds: stranger.caller.projectIds, scopes: stranger.caller.scopes };
    expect(await jobs.find(job.id, theirs).catch((error) => error.toBody())).toEqual(absent);
    expect(await jobs.find('nonsense', filter()).catch((error) => error.toBody())).toEqual(absent);
    await expect(jobs.find(job.id, { ...filter(), scopes: ['vms:read'] })).rejects.toMatchObject({
      code: 'forbidden_scope',
    });
  });

  it('lists newest first, page by page, without gap or repeat', async () => {
    for (let n = 0; n < 5; n++) await submit({ kind: free });
    const all = (await jobs.list(filter(), 10)).map((job) => job.id);
    const first = await jobs.list(filter(), 2);
    const rest = await jobs.list({ ...filter(), before: first[1]!.id }, 10);
    expect([...first, ...rest].map((job) => job.id)).toEqual(all);
    expect(await jobs.list({ ...filter(), scopes: ['vms:read'] }, 10)).toEqual([]);
  });

  it('wakes many waiters when the job ends, and gives up in time when it does not', async () => {
    const job = await claim(await submit());
    const still = await jobs.wait(job.id, (seen) => isFinal(seen.state), 20);
    expect(still.state).toBe('running');
    const waiting = Array.from({ length: 5 }, () => jobs.wait(job.id, (seen) => isFinal(seen.state), 30_000));
    await attempts.finish(refOf(job), { state: 'failed' });
    expect((await Promise.all(waiting)).map((seen) => seen.state)).toEqual(Array(5).fill('failed'));
  });
});
