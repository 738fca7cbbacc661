// npm run bench -- audit: how long a page of the audit takes, over two million events of twelve months, by every filter with a
// date range; and what the indexes cost an insert.
import { performance } from 'node:perf_hooks';
import { Audit, PAGE_MAX, makePartitions, sealEvents, type AuditFilter } from '@longhaul/audit';
import type { Database } from '@longhaul/persistence';
import { testDatabase } from '../support/database.js';

const EVENTS = Number(process.env.BENCH_AUDIT_EVENTS ?? 2_000_000);
const PAGE = 50;
const DEEP = 1_000;
/** Searches of each filter and range. */
const ROUNDS = 5;
const DAY_MS = 86_400_000;
const RANGES = [7, 31, 365];
const WORDS = ['nginx', 'exec', 'postgresql backup', 'w1234', 'prune', 'curl', 'nowhere'];

/** Users, VMs and tools are skewed as in life: few have most of the events. Ids are those of words, so that all is repeatable. */
async function fill(db: Database): Promise<void> {
  await db.$executeRaw`SELECT audit_make_partition(month) FROM generate_series(
    date_trunc('month', now() AT TIME ZONE 'UTC' - interval '1 year'), now() AT TIME ZONE 'UTC', interval '1 month') AS month`;
  await makePartitions(db);
  const restoreIndexes = await dropIndexes(db, '');
  await db.$executeRaw`
    INSERT INTO audit_events (at, event, user_id, token_id, client_id, project_id, customer, vm_id, job_id, tool, arguments,
      result, code, duration_ms, request_id, trace_id, client_name, client_version, ip, user_agent)
    SELECT now() - (${EVENTS}::int - n) * (interval '365 days' / ${EVENTS}::int),
      (ARRAY['call', 'call', 'call', 'call', 'call', 'call', 'call', 'call', 'job.submitted', 'job.finished'])[1 + n % 10],
      md5('user' || u)::uuid, md5('token' || u || '-' || n % 3)::uuid,
      CASE WHEN u % 4 = 0 THEN 'https://client-' || u % 40 || '.example/metadata' END,
      md5('project' || u / 2)::uuid, 'customer-' || u / 10, CASE WHEN n % 8 > 0 THEN md5('vm' || v)::uuid END,
      CASE WHEN n % 3 = 0 THEN md5('job' || n / 6)::uuid END,
      (ARRAY['exec_command', 'get_command', 'read_job_logs', 'list_vms', 'get_vm', 'start_vm', 'stop_vm', 'reset_vm',
        'cancel_job', 'list_jobs'])[1 + floor(10 * power(t, 3))::int],
      jsonb_build_object('vm', 'web-' || v, 'timeout_seconds', n % 600, 'command', (ARRAY[
        'systemctl restart nginx', 'apt-get install -y curl', 'tail -n 100 /var/log/syslog', 'df -h /srv',
        'git -C /srv/app pull --ff-only', 'docker image prune --force', '/usr/local/bin/postgresql-backup'])[1 + n % 7]
        || ' # w' || n % 50000),
      CASE WHEN n % 10 = 9 THEN 'succeeded' WHEN n % 37 = 0 THEN 'refused' WHEN n % 5003 = 0 THEN 'failed' ELSE 'ok' END,
      CASE WHEN n % 37 = 0 THEN (ARRAY['vm_not_found', 'forbidden_scope', 'vm_command_in_progress'])[1 + n % 3]
        WHEN n % 5003 = 0 THEN 'internal' END,
      n % 3000, md5('request' || n)::uuid, CASE WHEN n % 2 = 0 THEN md5('trace' || n) END, 'client', '1.' || n % 5,
      '198.51.' || u % 100 || '.' || n % 5, 'client/1.' || n % 5 || ' node/20'
    FROM (SELECT n, random() AS t, floor(1000 * power(random(), 4))::int AS u, floor(5000 * power(random(), 3))::int AS v
      FROM generate_series(1, ${EVENTS}::int) AS n) AS skewed`;
  await restoreIndexes();
  await db.$executeRaw`ANALYZE audit_events`;
  for (let round = 0; round < 2; round++) await sealEvents(db, () => undefined);
  await db.$executeRaw`VACUUM ANALYZE audit_events, audit_words`;
}

/** All but the primary key, and but those whose names match `keep`; answers what makes them anew. */
async function dropIndexes(db: Database, keep: string): Promise<() => Promise<void>> {
  const indexes = await db.$queryRaw<{ name: string; definition: string }[]>`
    SELECT indexrelid::regclass::text AS name, replace(pg_get_indexdef(indexrelid), ' ON ONLY ', ' ON ') AS definition
    FROM pg_index WHERE indrelid = 'audit_events'::regclass AND NOT indisprimary
      AND (${keep} = '' OR indexrelid::regclass::text !~ ${keep})`;
  await db.$executeRawUnsafe(`DROP INDEX ${indexes.map(({ name }) => name).join(', ')}`);
  return async () => {
    for (const { definition } of indexes) await db.$executeRawUnsafe(definition);
  };
}

const FILTERS = [
  'userId',
  'customer',
  'projectId',
  'vmId',
  'tokenId',
  'clientId',
  'tool',
  'result',
  'code',
  'ip',
  'jobId',
  'requestId',
  'traceId',
  'event',
] as const;

/** The most and the least frequent value of each filter, and one in between: each has its own best plan. */
async function filters(db: Database): Promise<AuditFilter[]> {
  const all: AuditFilter[] = [{}];
  for (const filter of FILTERS) {
    const column = filter.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    const values = await db.$queryRawUnsafe<{ value: string }[]>(
      `SELECT ${column}::text AS value FROM audit_events WHERE ${column} IS NOT NULL GROUP BY 1 ORDER BY count(*) DESC, 1`,
    );
    const chosen = new Set([0, values.length >> 1, values.length - 1].map((index) => values[index]!.value));
    for (const value of chosen) all.push({ [filter]: value });
  }
  return all;
}

/** Where page 1000 of the search begins, or the last page of a shorter one. */
async function deepCursor(audit: Audit, filter: AuditFilter): Promise<string | undefined> {
  let cursor: string | undefined;
  for (let skipped = 0; skipped < (DEEP - 1) * PAGE; skipped += PAGE_MAX) {
    const page = await audit.search(filter, {
      limit: Math.min(PAGE_MAX, (DEEP - 1) * PAGE - skipped),
      cursor,
    });
    if (!page.cursor) break;
    cursor = page.cursor;
  }
  return cursor;
}

async function time(task: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await task();
  return performance.now() - start;
}

function p95(times: number[]): number {
  const sorted = times.toSorted((a, b) => a - b);
  return Math.round(sorted[Math.floor(sorted.length * 0.95)]! * 10) / 10;
}

/** Events a second that calls store, in groups as they come; with all indexes, and with those alone that a plain table had. */
async function insertRatio(db: Database): Promise<number> {
  const rate = async () => {
    const audit = new Audit(db);
    const calls = Array.from({ length: 32 }, async (_, caller) => {
      for (let n = 0; n < 200; n++) await audit.record(callOf(caller, n));
    });
    return (32 * 200) / (await time(() => Promise.all(calls)));
  };
  const rounds = async () => Math.max(await rate(), await rate(), await rate());
  const indexed = await rounds();
  await dropIndexes(db, 'at_id|job');
  return indexed / (await rounds());
}

const callOf = (caller: number, n: number) => ({
  event: 'call' as const,
  userId: uuid(caller),
  tokenId: uuid(caller),
  projectId: uuid(caller >> 1),
  vmId: uuid(caller * 10 + (n % 10)),
  tool: 'exec_command',
  arguments: { vm: `web-${n % 10}`, command: 'systemctl restart nginx', timeout_seconds: n },
  result: 'ok',
  durationMs: n,
  requestId: `${performance.now()}-${caller}-${n}`,
  ip: `198.51.100.${caller}`,
  clientName: 'client',
  clientVersion: '1.0',
  userAgent: 'client/1.0 node/20',
});

const uuid = (n: number) => `00000000-0000-0000-0000-${String(n).padStart(12, '0')}`;

export default async function bench(): Promise<object> {
  const { db, audit, drop } = await testDatabase();
  try {
    console.log(`${EVENTS} events made and sealed in ${Math.round((await time(() => fill(db))) / 1_000)} s`);
    const first: number[] = [];
    const deep: number[] = [];
    const text: number[] = [];
    const now = Date.now() + 60_000;
    const measure = async (times: number[], search: () => Promise<unknown>, label: string) => {
      const taken: number[] = [];
      for (let round = 0; round < ROUNDS; round++) taken.push(await time(search));
      times.push(...taken);
      if (p95(taken) > 30) console.log(`${label}: ${taken.map((ms) => ms.toFixed(1)).join(' ')} ms`);
    };
    for (const filter of await filters(db)) {
      for (const days of RANGES) {
        const ranged = { ...filter, from: new Date(now - days * DAY_MS), to: new Date(now) };
        const label = `${JSON.stringify(filter)} within ${days} days`;
        await measure(first, () => audit.search(ranged, { limit: PAGE }), label);
        const cursor = await deepCursor(audit, ranged);
        await measure(deep, () => audit.search(ranged, { limit: PAGE, cursor }), `${label}, page ${DEEP}`);
      }
    }
    for (const words of WORDS) {
      for (const ago of [0, 100]) {
        const to = now - ago * DAY_MS;
        const ranged = { text: words, from: new Date(to - 31 * DAY_MS), to: new Date(to) };
        await measure(text, () => audit.search(ranged, { limit: PAGE }), `text ${words}, ${ago} days ago`);
      }
    }
    return {
      events: EVENTS,
      p95_first_page_ms: p95(first),
      p95_page_1000_ms: p95(deep),
      p95_text_ms: p95(text),
      insert_ratio: Math.round((await insertRatio(db)) * 100) / 100,
    };
  } finally {
    await drop();
  }
}
