import type { Database } from '@longhaul/persistence';
import { metrics } from '@longhaul/telemetry';
import { queueName } from './states.js';

/** Of more live jobs than these the metrics say no more. */
const JOBS_MAX = 100_000;
const LANES = ['interactive', 'bulk'];

interface Live {
  kind: string;
  state: 'queued' | 'running' | 'awaiting_input';
  queue: string;
  count: number;
}

/** Brings the metrics that are of the whole installation up to date; without the database there are none of them. */
export async function measureJobs(db: Database): Promise<void> {
  const { liveJobs, queueWaiting, hostHeartbeatAge } = metrics;
  for (const gauge of [liveJobs, queueWaiting, hostHeartbeatAge]) gauge.reset();
  const [live, hosts] = await Promise.all([
    db.$queryRaw<Live[]>`
      SELECT kind, state, queue, count(*)::int AS count FROM (
        SELECT kind, state, queue FROM jobs WHERE state IN ('queued', 'running', 'awaiting_input') LIMIT ${JOBS_MAX}) AS live
      GROUP BY 1, 2, 3`,
    db.$queryRaw<{ name: string; age: number }[]>`
      SELECT name, extract(epoch FROM now() - beat_at)::float AS age FROM hosts`,
  ]);
  // A queue that is empty says so, for who reckons with it.
  for (const host of [null, ...hosts.map(({ name }) => name)])
    for (const lane of LANES) queueWaiting.set({ queue: queueName(lane, host) }, 0);
  for (const { kind, state, queue, count } of live) {
    liveJobs.inc({ kind, state }, count);
    if (state === 'queued') queueWaiting.inc({ queue }, count);
  }
  for (const { name, age } of hosts) hostHeartbeatAge.set({ host: name }, age);
}
