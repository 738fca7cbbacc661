// What submitting, claiming and ending a job costs in the database, with a long history and a backlog, against the same without
// a backlog: in the project that has the backlog, and in one beside it.
import type { Caller } from '@longhaul/access';
import { Attempts, Jobs, jobsConfig } from '@longhaul/jobs';
import { makeUser, testDatabase, type TestDatabase } from '../support/database.js';
import { NoDelivery } from '../support/hand-worker.js';
import { work } from '../support/work.js';
import { median, round, timed } from './figures.js';

const ROUNDS = 200;
const ENDED = 100_000;
const BACKLOGS = [0, 1_000, 10_000, 100_000];
/** A project's default. */
const WINDOW = 50;

type Costs = Record<'submit' | 'claim' | 'finish', number>;

export default async function jobs(): Promise<object> {
  const test = await testDatabase();
  try {
    const [busy, idle] = [(await makeUser(test.db)).caller, (await makeUser(test.db)).caller];
    await test.db.project.updateMany({ data: { liveJobLimit: 1_000_000 } });
    await insert(test, busy, 'succeeded', ENDED);
    const all: Costs[][] = [];
    for (const backlog of BACKLOGS) {
      await insert(test, busy, 'queued', backlog, await test.db.job.count({ where: { state: 'queued' } }));
      await test.db.$executeRaw`VACUUM ANALYZE jobs`;
      const costs = [await measure(test, busy), await measure(test, idle)];
      const show = ({ submit, claim, finish }: Costs) =>
        `submit ${round(submit)}, claim ${round(claim)}, finish ${round(finish)} ms`;
      console.log(`jobs: backlog of ${backlog}: ${show(costs[0]!)}; in another project ${show(costs[1]!)}`);
      all.push(costs);
    }
    return { job_cost_100k_to_0: round(worstRatio(all.at(-1)!, all[0]!)) };
  } finally {
    await test.drop();
  }
}

function worstRatio(after: Costs[], before: Costs[]): number {
  const steps = ['submit', 'claim', 'finish'] as const;
  return Math.max(
    ...after.flatMap((costs, index) => steps.map((step) => costs[step] / before[index]![step])),
  );
}

/** Makes `count` rows of jobs of those `there`, without attempts and events; the first of those queued are in the window. */
async function insert(
  { db }: TestDatabase,
  { userId, projectIds }: Caller,
  state: string,
  count: number,
  there = 0,
) {
  await db.$executeRaw`
    INSERT INTO jobs (id, kind, state, project_id, user_id, lane, scope, payload, run_seconds, deadline_at, place, finished_at)
    SELECT gen_random_uuid(), ${work.name}, ${state}::job_state, ${projectIds[0]}::uuid, ${userId}::uuid, 'bulk', 'vms:exec', '{}',
      60, now() + interval '1 day', (CASE WHEN n > ${WINDOW} THEN 'held' ELSE 'window' END)::queue_place,
      CASE WHEN ${state} = 'succeeded' THEN now() END
    FROM generate_series(${there}::int + 1, ${count}::int) AS n`;
}

/** Medians, in milliseconds. Each round submits one job and ends the first of the window. */
async function measure(test: TestDatabase, caller: Caller): Promise<Costs> {
  const jobs = new Jobs(test.db, test.audit, new NoDelivery(), test.changes);
  const attempts = new Attempts(test.db, jobs, jobsConfig.parse({}));
  const projectId = caller.projectIds[0]!;
  const times = { submit: [] as number[], claim: [] as number[], finish: [] as number[] };
  for (let n = 0; n < ROUNDS; n++) {
    times.submit.push(await timed(() => jobs.submit({ kind: work, payload: {}, by: caller, projectId })));
    const where = { projectId, state: 'queued', place: 'window' } as const;
    const { id: jobId } = await test.db.job.findFirstOrThrow({ where });
    let attempt = 0;
    times.claim.push(await timed(async () => ({ attempt } = (await attempts.claim(jobId, 'bench'))!)));
    times.finish.push(await timed(() => attempts.finish({ jobId, attempt }, { state: 'succeeded' })));
  }
  return { submit: median(times.submit), claim: median(times.claim), finish: median(times.finish) };
}
