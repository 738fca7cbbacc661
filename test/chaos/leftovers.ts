import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import type { Cluster } from '../support/cluster.js';
import type { Machine } from './machines.js';

/** What should not be there once every job has ended and all is well: of each thing a line. */
export async function leftovers(cluster: Cluster, machines: Iterable<Machine>): Promise<string[]> {
  const found = [
    ...(await inDatabase(cluster)),
    ...(await inQueue(cluster)),
    ...lockFiles(join(cluster.stack.home, 'locks')),
  ];
  // Asking a guest may be a job of its own.
  if (found.length > 0) return found;
  for (const machine of machines) found.push(...(await machine.leftovers()));
  return found;
}

async function inDatabase({ stack }: Cluster): Promise<string[]> {
  const { db } = stack.database;
  const jobs = await db.job.findMany({
    where: {
      OR: [
        { state: { in: ['queued', 'running', 'awaiting_input'] } },
        { quarantined: true },
        { leaseUntil: { not: null } },
      ],
    },
  });
  const attempts = await db.jobAttempt.findMany({ where: { endedAt: null } });
  const sessions = await db.$queryRaw<{ state: string; query: string }[]>`
    SELECT state, query FROM pg_stat_activity
    WHERE state LIKE 'idle in transaction%' AND state_change < now() - interval '5 s'`;
  const artifacts = await db.artifact.findMany({
    where: { expiresAt: { lt: new Date(Date.now() - 2 * 3_600_000) } },
  });
  return [
    ...jobs.map(
      ({ id, kind, state, quarantined }) =>
        `job ${id}, ${kind}: ${state}${quarantined ? ', in quarantine' : ''}`,
    ),
    ...attempts.map(
      ({ jobId, attempt, worker }) => `attempt ${attempt} of job ${jobId} by ${worker} has no end`,
    ),
    ...sessions.map(({ state, query }) => `session ${state}: ${query}`),
    ...artifacts.map(({ id }) => `artifact ${id} past its life`),
  ];
}

/** Deliveries, waiting or said to be in work. */
async function inQueue(cluster: Cluster): Promise<string[]> {
  const redis = new Redis(cluster.server('redis').url);
  try {
    const keys = await redis.keys('bull:*');
    return keys
      .filter((key) => !/:(meta|id|events|marker|stalled-check|pc)$/.test(key))
      .map((key) => `in the queue: ${key}`);
  } finally {
    redis.disconnect();
  }
}

/** Files of locks but the highest one of each, and that one if it was never given back. */
function lockFiles(directory: string): string[] {
  const found: string[] = [];
  for (const entry of readdirSync(directory, { recursive: true, withFileTypes: true })) {
    if (!entry.isDirectory() || !entry.name.endsWith('.lock')) continue;
    const folder = join(entry.parentPath, entry.name);
    const files = readdirSync(folder);
    const last = files.filter((file) => /^\d+$/.test(file)).sort((a, b) => Number(b) - Number(a))[0];
    for (const file of files) if (file !== last) found.push(`lock file ${join(folder, file)}`);
    if (last && !readFileSync(join(folder, last), 'utf8').includes('"released":true'))
      found.push(`held lock ${folder}`);
  }
  return found;
}
