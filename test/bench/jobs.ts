// What submitting, claiming and ending a job costs in the database, in microseconds, with a long history and a backlog.
import { performance } from 'node:perf_hooks';
import type { Caller } from '@longhaul/access';
import { Attempts, Jobs, jobsConfig } from '@longhaul/jobs';
import { makeUser, testDatabase, type TestDatabase } from '../support/database.js';
import { NoDelivery } from '../support/hand-worker.js';
import { work } from '../support/work.js';

const ROUNDS = 200;
const ENDED = 100_000;

const median = (times: number[]) => Math.round(times.sort((a, b) => a - b)[times.length >> 1]! * 1000);

/** Rows of jobs without history; of the queued ones, the window's are delivered. */
async function insert({ db }: TestDatabase, { userId, projectIds }: Caller, state: string, count: number) {
  await db.$executeRaw`
    INSERT INTO jobs (id, kind, state, project_id, user_id, lane, scope, payload, run_seconds, deadline_at, place)
    SELECT gen_random_uuid(), ${work.name}, ${state}::job_state, ${projectIds[0]}::uuid, ${userId}::uuid, 'bulk', 'vms:exec', '{}', 60,
      now() + interval '1 day', (CASE WHEN n > 50 THEN 'held' ELSE 'window' END)::queue_place
    FROM generate_series(1, ${count}::int) AS n`;
}

async function measure(test: TestDatabase, caller: Caller) {
  const jobs = new Jobs(test.db, test.audit, new NoDelivery(), test.changes);
  const attempts = new Attempts(test.db, jobs, jobsConfig.parse({}));
  const times = { submit: [] as number[], claim: [] as number[], finish: [] as number[] };
  const timed = async <T>(into: number[], act: () => Promise<T>) => {
    const begun = performance.now();
    const done = await act();
    into.push(performance.now() - begun);
    return done;
  };
  for (let n = 0; n < ROUNDS; n++) {
    const projectId = caller.projectIds[0]!;
    await timed(times.submit, () => jobs.submit({ kind: work, payload: {}, by: caller, projectId }));
    const { id } = (await test.db.job.findFirst({
      where: { projectId, state: 'queued', place: 'window' },
    }))!;
    const { attempt } = (await timed(times.claim, () => attempts.claim(id, 'bench')))!;
    await timed(times.finish, () => attempts.finish({ jobId: id, attempt }, { state: 'succeeded' }));
  }
  return { submit: median(times.submit), claim: median(times.claim), finish: median(times.finish) };
}

/** Of a project with a backlog of so many jobs, and of one without beside it. */
export default async function jobs(): Promise<object> {
  const test = await testDatabase();
  const figures: Record<string, object> = {};
  try {
    const [busy, idle] = [(await makeUser(test.db)).caller, (await makeUser(test.db)).caller];
    await test.db.project.updateMany({ data: { liveJobLimit: 1_000_000 } });
    await insert(test, busy, 'succeeded', ENDED);
    for (const more of [0, 1_000, 9_000, 90_000]) {
      await insert(test, busy, 'queued', more);
      await test.db.$executeRaw`ANALYZE jobs`;
      const queued = await test.db.job.count({ where: { state: 'queued' } });
      figures[queued] = { busy: await measure(test, busy), idle: await measure(test, idle) };
    }
  } finally {
    await test.drop();
  }
  return figures;
}
