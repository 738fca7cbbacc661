import { envInteger } from '@longhaul/config';
import { Prisma, type Database, type Transaction } from '@longhaul/persistence';
import { z } from 'zod';
import { addSeal, endOfChain, lockChain } from './chain.js';

export const auditConfig = z.object({
  AUDIT_RETENTION_DAYS: envInteger(1, 36_500)
    .default(400)
    .describe('The audit of a month is dropped, with its partition, this long after that month; seals stay'),
});

/** Months that an insert or a search soon needs. Events of a month without one go to the default partition. */
export async function makePartitions(db: Database): Promise<void> {
  await db.$executeRaw`SELECT audit_make_partitions()`;
}

interface Partition {
  name: string;
  words: string;
  from: Date;
  to: Date;
}

/**
 * Drops partitions whose events are all older than `days` and sealed, and records that in the chain. Answers the dropped
 * partitions' names: none for a login that does not own the tables. One that somebody reads is left for the next time.
 */
export async function dropExpired(db: Database, days: number): Promise<string[]> {
  const [table] = await db.$queryRaw<{ mine: boolean }[]>`
    SELECT pg_has_role(relowner, 'USAGE') AS mine FROM pg_class WHERE oid = 'audit_events'::regclass`;
  if (!table?.mine) return [];
  const expired = await db.$queryRaw<Partition[]>`
    SELECT quote_ident(relname) AS name, quote_ident(replace(relname, 'audit_events', 'audit_words')) AS words, "from", "to"
    FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid,
      regexp_match(pg_get_expr(relpartbound, pg_class.oid), $$FROM \\('(.+)'\\) TO \\('(.+)'\\)$$) AS bounds,
      LATERAL (
        SELECT bounds[1]::timestamptz AS "from", bounds[2]::timestamptz AS "to" WHERE bounds IS NOT NULL
        UNION ALL
        SELECT min(at), max(at) + interval '1 ms' FROM audit_events_default WHERE bounds IS NULL) AS covers
    WHERE inhparent = 'audit_events'::regclass AND "to" <= now() - ${days} * interval '1 day'
    ORDER BY "from"`;
  const dropped: string[] = [];
  for (const partition of expired) {
    if (await db.$transaction((tx) => drop(tx, partition))) dropped.push(partition.name);
  }
  return dropped;
}

async function drop(tx: Transaction, { name, words, from, to }: Partition): Promise<boolean> {
  if (!(await lockChain(tx))) return false;
  const end = await endOfChain(tx);
  const [last] = await tx.$queryRaw<{ id: bigint | null }[]>`SELECT max(id) AS id FROM ${Prisma.raw(name)}`;
  if (last?.id && last.id > end.lastId) return false;
  // Whoever calls meanwhile waits for this lock, too.
  await tx.$executeRaw`SET LOCAL lock_timeout = '1s'`;
  await tx.$executeRaw`DROP TABLE ${Prisma.raw(name)}, ${Prisma.raw(words)}`;
  if (name === 'audit_events_default') {
    for (const parent of ['audit_events', 'audit_words']) {
      await tx.$executeRaw(Prisma.raw(`CREATE TABLE ${parent}_default PARTITION OF ${parent} DEFAULT`));
      await tx.$executeRaw`SELECT audit_guard(${`${parent}_default`})`;
    }
  }
  const content = Prisma.sql`
    SELECT ${end.lastId}::bigint AS last_id, 0 AS count, ''::bytea AS entries,
      ${from}::timestamptz(3) AS dropped_from, ${to}::timestamptz(3) AS dropped_to`;
  await addSeal(tx, end, content);
  return true;
}
