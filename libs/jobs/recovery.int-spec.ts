import { Database, type Job } from '@longhaul/persistence';
import { Audit } from '@longhaul/audit';
import { work } from '../../test/support/work.js';
import { makeUser, testDatabase, type TestDatabase } from '../../test/support/database.js';
import { Attempts, JobDelivery, Jobs, Recovery, type Delivery } from './index.js';
import { REDELIVER_SECONDS } from './states.js';

const EACH = 60;
const WORKERS = 5;

/** Keeps what it was given, for the test to look at. */
class Deliveries extends JobDelivery {
  readonly all: Delivery[] = [];
  async deliver(delivery: Delivery) {
    this.all.push(delivery);
  }
  async ping() {}
  of = ({ id }: Job) => this.all.filter(({ jobId }) => jobId === id).map(({ number }) => number);
}

let test: TestDatabase;
let databases: Database[];
beforeAll(async () => {
  test = await testDatabase();
  databases = Array.from(
    { length: WORKERS },
    () => new Database({ DATABASE_URL: test.url, DATABASE_POOL: 3 }),
  );
});
afterAll(async () => {
  for (const db of databases) await db.onApplicationShutdown();
  await test.drop();
});

it('of many workers that sweep at once, one moves on each job, once', async () => {
  const deliveries = new Deliveries();
  const recoveries = databases.map(
    (db) => new Recovery(db, new Jobs(db, new Audit(db), deliveries, test.changes)),
  );
  const jobs = new Jobs(test.db, test.audit, deliveries, test.changes);
  const attempts = new Attempts(test.db, jobs, { JOB_LEASE_SECONDS: 600 });
  const { caller } = await makeUser(test.db);
  await test.db.project.updateMany({ data: { concurrency: 10 * EACH } });
  const projectId = caller.projectIds[0]!;
  const submit = () => jobs.submit({ kind: work, payload: {}, by: { userId: caller.userId }, projectId });
  const submitAll = () => Promise.all(Array.from({ length: EACH }, submit));
  const set = (of: Job[], data: object) =>
    test.db.job.updateMany({ where: { id: { in: of.map(({ id }) => id) } }, data });
  const past = new Date(Date.now() - 60_000);

  const lost = await submitAll();
  for (const { id } of lost) await attempts.claim(id, 'dead');
  await set(lost, { leaseUntil: past });
  const undelivered = await submitAll();
  await set(undelivered, { redeliverAt: past });
  const overdue = await submitAll();
  await set(overdue, { deadlineAt: past });
  const quarantined = await submitAll();
  await set(quarantined, { state: 'unknown', quarantined: true, host: 'local', finishedAt: past });

  const begun = await test.db.now();
  await Promise.all(recoveries.map((recovery) => recovery.sweep()));
  const seconds = ((await test.db.now()).getTime() - begun.getTime()) / 1000;
  // Whatever nobody claims is delivered again after a while.
  const most = 2 + Math.floor(seconds / REDELIVER_SECONDS);
  for (const job of [...lost, ...undelivered]) {
    const numbers = deliveries.of(job);
    expect(numbers.slice(0, 2)).toEqual([1, 2]);
    expect(numbers.length).toBeLessThanOrEqual(most);
  }
  const ids = (of: Job[]) => ({ jobId: { in: of.map(({ id }) => id) } });
  const ended = await test.db.jobAttempt.findMany({ where: { ...ids(lost), outcome: 'lost' } });
  expect(ended).toHaveLength(EACH);
  const told = await test.db.auditEvent.findMany({ where: { event: 'job.finished' } });
  expect(told.map(({ jobId }) => jobId).sort()).toEqual(overdue.map(({ id }) => id).sort());

  const taking = recoveries.map(async (recovery) => {
    const taken: string[] = [];
    for (let job; (job = await recovery.takeQuarantined(['local']));) taken.push(job.id);
    return taken;
  });
  const taken = (await Promise.all(taking)).flat();
  expect(taken.sort()).toEqual(quarantined.map(({ id }) => id).sort());
});
