import { JobLog } from '@longhaul/job-log';
import { newId, type Job } from '@longhaul/persistence';
import { makeUser, testDatabase, type TestDatabase } from '../../test/support/database.js';
import { HandWorker, NoDelivery } from '../../test/support/hand-worker.js';
import { work } from '../../test/support/work.js';
import { Jobs, Retention } from './index.js';

const DAY_MS = 24 * 60 * 60 * 1000;
const question = { message: 'Which?', schema: { type: 'object' as const, properties: {} } };

let test: TestDatabase;
let jobs: Jobs;
let worker: HandWorker;
let retention: Retention;
beforeEach(async () => {
  test = await testDatabase();
  jobs = new Jobs(test.db, test.audit, new NoDelivery(), test.changes);
  worker = new HandWorker(test);
  retention = new Retention(test.db, { JOB_RETENTION_DAYS: 30 });
});
afterEach(() => test.drop());

const never = new AbortController().signal;
const forgetNothing = async () => {};

/** With output, a question and an end as it is given; none leaves it running. */
async function makeJob(outcome?: { state: 'succeeded' | 'unknown'; quarantine?: boolean }): Promise<Job> {
  const { caller } = await makeUser(test.db);
  const by = { userId: caller.userId };
  const job = await jobs.submit({ kind: work, payload: {}, by, projectId: caller.projectIds[0]! });
  await worker.ask(await worker.claim(job.id), { a: question });
  await jobs.answer(job.id, { a: { action: 'decline' } }, by);
  const ref = await worker.claim(job.id);
  await worker.write(ref, 'stdout', Buffer.from('output'));
  if (outcome) await worker.finish(ref, outcome);
  return job;
}

/** As if all of the job had happened `days` earlier. */
async function age({ id }: Job, days: number): Promise<void> {
  await test.db.$executeRaw`
    UPDATE jobs SET created_at = created_at - ${days} * interval '1 day', finished_at = finished_at - ${days} * interval '1 day'
    WHERE id = ${id}::uuid`;
}

const left = async ({ id: jobId }: Job) => ({
  job: await test.db.job.count({ where: { id: jobId } }),
  attempts: await test.db.jobAttempt.count({ where: { jobId } }),
  questions: await test.db.jobQuestion.count({ where: { jobId } }),
  streams: await test.db.jobLogStream.count({ where: { jobId } }),
  chunks: await test.db.jobLogChunk.count({ where: { jobId } }),
});

it('deletes what ended long ago with all it had, and nothing else; the audit stays', async () => {
  const old = await makeJob({ state: 'succeeded' });
  const young = await makeJob({ state: 'succeeded' });
  const live = await makeJob();
  const quarantined = await makeJob({ state: 'unknown', quarantine: true });
  for (const job of [old, live, quarantined]) await age(job, 31);
  await age(young, 29);

  await Promise.all([
    retention.sweep(never, forgetNothing),
    retention.sweep(never, forgetNothing),
    retention.sweep(never, forgetNothing),
  ]);

  expect(await left(old)).toEqual({ job: 0, attempts: 0, questions: 0, streams: 0, chunks: 0 });
  for (const job of [young, live, quarantined]) {
    expect(await left(job)).toEqual({ job: 1, attempts: 2, questions: 1, streams: 1, chunks: 1 });
    expect((await new JobLog(test.db).read(job.id, 'stdout', 0, 100)).data.toString()).toBe('output');
  }
  expect(await test.db.auditEvent.count({ where: { jobId: old.id } })).toBe(3);
});

it('goes on batch by batch until nothing is left, unless it is told to stop', async () => {
  const { projectId, userId } = await makeJob({ state: 'succeeded' });
  await test.db.$executeRaw`
    INSERT INTO jobs (id, kind, state, project_id, user_id, lane, scope, payload, run_seconds, deadline_at, created_at, finished_at)
    SELECT gen_random_uuid(), 'test.kept', 'succeeded', ${projectId}::uuid, ${userId}::uuid, 'bulk', 'vms:exec', '{}', 1,
      now(), now() - interval '40 days', now() - interval '39 days' FROM generate_series(1, 1200)`;
  await retention.sweep(AbortSignal.abort(), forgetNothing);
  expect(await test.db.job.count()).toBe(1201);
  await retention.sweep(never, forgetNothing);
  expect(await test.db.job.count()).toBe(1);
});

it('deletes request states that have expired', async () => {
  const expiresIn = (ms: number) => ({ id: newId(), expiresAt: new Date(Date.now() + ms) });
  const valid = expiresIn(DAY_MS);
  await test.db.usedRequestState.createMany({ data: [expiresIn(-DAY_MS), valid] });
  await retention.sweep(never, forgetNothing);
  expect(await test.db.usedRequestState.findMany()).toEqual([valid]);
});
