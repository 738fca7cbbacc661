import type { Caller } from '@longhaul/access';
import type { Job } from '@longhaul/persistence';
import { z } from 'zod';
import { makeUser, makeVm, testDatabase, type TestDatabase } from '../../test/support/database.js';
import { HandWorker, NoDelivery } from '../../test/support/hand-worker.js';
import { Jobs, defineJobKind, type Answer, type Question } from './index.js';

const kind = defineJobKind({
  name: 'test.asking',
  version: 1,
  payload: z.strictObject({}),
  result: z.strictObject({}),
  scope: 'vms:exec',
  slot: 'command',
  lane: 'bulk',
  queueSeconds: 60,
  runSeconds: () => 60,
});
const sure: Question = {
  message: 'Sure?',
  schema: { type: 'object', properties: { sure: { type: 'boolean' } } },
};
const name: Question = {
  message: 'Which name?',
  schema: { type: 'object', properties: { name: { type: 'string' } }, required: ['name'] },
};
const yes: Answer = { action: 'accept', content: { sure: true } };
const no: Answer = { action: 'decline' };

let test: TestDatabase;
let jobs: Jobs;
let caller: Caller;
let worker: HandWorker;
let other: HandWorker;
beforeAll(async () => {
  test = await testDatabase();
  jobs = new Jobs(test.db, test.audit, new NoDelivery(), test.changes);
  worker = new HandWorker(test);
  other = new HandWorker(test);
});
afterAll(() => test.drop());

async function submit(): Promise<Job> {
  ({ caller } = await makeUser(test.db));
  const vm = await makeVm(test.db, caller);
  const by = { userId: caller.userId, tokenId: caller.tokenId };
  return jobs.submit({ kind, payload: {}, by, projectId: vm.projectId, vm });
}
const stored = (job: Job) => test.db.job.findUniqueOrThrow({ where: { id: job.id } });
const answer = (job: Job, answers: Record<string, Answer>) =>
  jobs.answer(job.id, answers, { userId: caller.userId, tokenId: caller.tokenId, requestId: 'r-1' });

it('asks, waits through a part of the answers, is queued with the last one, and goes on in any worker', async () => {
  const job = await submit();
  const ref = await worker.claim(job.id);
  expect(await worker.ask(ref, { sure, name })).toBeUndefined();
  const asked = await stored(job);
  expect(asked).toMatchObject({ state: 'awaiting_input', leaseUntil: null, slot: 'command' });
  expect(await jobs.questions(job.id)).toEqual({ sure, name });
  expect(await test.db.jobAttempt.findFirst({ where: { jobId: job.id } })).toMatchObject({
    outcome: 'awaiting_input',
  });

  const partly = await answer(job, { sure: yes });
  expect(partly.state).toBe('awaiting_input');
  expect(partly.updatedAt.getTime()).toBeGreaterThan(asked.updatedAt.getTime());
  expect(await jobs.questions(job.id)).toEqual({ name });
  expect(await answer(job, { name: no })).toMatchObject({ state: 'queued', delivery: 2 });
  expect(await jobs.questions(job.id)).toEqual({});

  const next = await other.claim(job.id);
  expect(next.attempt).toBe(2);
  expect(await other.ask(next, { sure, name })).toEqual({ sure: yes, name: no });
  await other.finish(next, { state: 'succeeded', result: {} });
});

it('asks again with other keys, and only what was not asked yet', async () => {
  const job = await submit();
  await worker.ask(await worker.claim(job.id), { sure });
  await answer(job, { sure: yes });
  const second = await worker.claim(job.id);
  expect(await worker.ask(second, { sure })).toEqual({ sure: yes });
  expect(await worker.ask(second, { sure, name })).toBeUndefined();
  expect(await jobs.questions(job.id)).toEqual({ name });
  await answer(job, { name: no });
  expect(await worker.ask(await worker.claim(job.id), { sure, name })).toEqual({ sure: yes, name: no });
});

it('leaves alone unknown keys, answered questions and jobs that await nothing', async () => {
  const job = await submit();
  expect(await answer(job, { sure: yes })).toMatchObject({ state: 'queued', delivery: 1 });
  await worker.ask(await worker.claim(job.id), { sure, name });
  const before = await stored(job);
  expect(await answer(job, { other: yes })).toEqual(before);
  await answer(job, { sure: yes, other: no });
  const partly = await stored(job);
  expect(await answer(job, { sure: no })).toEqual(partly);
  await answer(job, { name: no });
  expect(await answer(job, { name: yes })).toMatchObject({ state: 'queued', delivery: 2 });
  const ref = await worker.claim(job.id);
  expect(await worker.ask(ref, { sure, name })).toEqual({ sure: yes, name: no });
  await worker.finish(ref, { state: 'failed' });
  expect(await answer(job, { sure: no })).toMatchObject({ state: 'failed' });
});

it('lets one of racing answers win, and queues the job once', async () => {
  const job = await submit();
  await worker.ask(await worker.claim(job.id), { sure });
  const racing = await Promise.all(
    Array.from({ length: 6 }, (_, n) => answer(job, { sure: n % 2 ? yes : no })),
  );
  expect(racing.map(({ delivery }) => delivery)).toEqual(Array(6).fill(2));
  expect(await test.db.auditEvent.count({ where: { jobId: job.id, event: 'job.answered' } })).toBe(1);
});

it('says in the audit who answered, never what', async () => {
  const job = await submit();
  await worker.ask(await worker.claim(job.id), { sure, name });
  await answer(job, { other: yes, name: { action: 'accept', content: { name: 'a secret' } } });
  const event = await test.db.auditEvent.findFirstOrThrow({
    where: { jobId: job.id, event: 'job.answered' },
  });
  expect(event).toMatchObject({
    userId: caller.userId,
    tokenId: caller.tokenId,
    projectId: job.projectId,
    requestId: 'r-1',
    arguments: [{ key: 'name', action: 'accept' }],
    result: 'awaiting_input',
  });
  const row = await test.db.jobQuestion.findFirst({ where: { jobId: job.id, key: 'name' } });
  expect(row).toMatchObject({ answeredBy: caller.userId });
});

it.each([
  ['more than 64 KiB', 'x'.repeat(64 * 1024)],
  ['NUL', 'a\0b'],
  ['half of a surrogate pair', '\\\udc00'],
])('refuses an answer with %s', async (_what, text) => {
  const job = await submit();
  await worker.ask(await worker.claim(job.id), { name });
  const bad = answer(job, { name: { action: 'accept', content: { name: text } } });
  await expect(bad).rejects.toMatchObject({ code: 'invalid_arguments' });
  expect(await stored(job)).toMatchObject({ state: 'awaiting_input' });
});

it('keeps every other text as it is', async () => {
  const job = await submit();
  await worker.ask(await worker.claim(job.id), { name });
  const odd: Answer = { action: 'accept', content: { name: '\\u0000 \\\\ud800 \u{1f600} "\n' } };
  await answer(job, { name: odd });
  expect(await worker.ask(await worker.claim(job.id), { name })).toEqual({ name: odd });
});

it('a cancel ends what awaits an answer; who was told to end before asks nobody', async () => {
  const job = await submit();
  await worker.ask(await worker.claim(job.id), { sure });
  await expect(jobs.cancel(job.id, { userId: caller.userId })).resolves.toMatchObject({ state: 'cancelled' });
  expect(await jobs.questions(job.id)).toEqual({});
  expect(await answer(job, { sure: yes })).toMatchObject({ state: 'cancelled' });

  const late = await submit();
  const ref = await worker.claim(late.id);
  await jobs.cancel(late.id, { userId: caller.userId });
  expect(await worker.ask(ref, { sure })).toEqual({ sure: { action: 'cancel' } });
  expect(await stored(late)).toMatchObject({ state: 'running' });
});
