import { Prisma, type Transaction } from '@longhaul/persistence';

/** Of our advisory lock: one at a time adds to the chain. */
const LOCK_ID = 5_641_720_115;

/** Bytes of `entries` that an event takes: id (8), time in milliseconds (8), SHA-256 of everything else (32). */
export const ENTRY_BYTES = 48;

const milliseconds = (time: string) => Prisma.raw(`int8send((extract(epoch FROM ${time}) * 1000)::bigint)`);

/**
 * The entry of the row `stored` of audit_events. Its canonical form is jsonb, which orders keys; fields without a value are
 * left out, so that a field of a later version changes no older event. Arguments go in as text, whose nulls stay.
 */
export const ENTRY = Prisma.sql`
  int8send(stored.id) || ${milliseconds('stored.at')} || sha256(convert_to(jsonb_strip_nulls(
    (to_jsonb(stored) - '{id,at}'::text[]) || jsonb_build_object('arguments', stored.arguments::text))::text, 'UTF8'))`;

/** The digest of the row `seal` of audit_seals, without which none of its fields can be changed, nor of the seals before. */
export const DIGEST = Prisma.sql`
  sha256(seal.previous || int8send(seal.number) || ${milliseconds('seal.sealed_at')} || int8send(seal.after_id)
    || int8send(seal.last_id) || int4send(seal.count) || ${milliseconds("coalesce(seal.dropped_from, 'epoch')")}
    || ${milliseconds("coalesce(seal.dropped_to, 'epoch')")} || seal.entries)`;

/** Until the transaction ends; false when somebody else has it. */
export async function lockChain(tx: Transaction): Promise<boolean> {
  const [row] = await tx.$queryRaw<{ locked: boolean }[]>`
    SELECT pg_try_advisory_xact_lock(${LOCK_ID}::bigint) AS locked`;
  return row!.locked;
}

export interface Link {
  number: bigint;
  lastId: bigint;
  digest: Uint8Array;
}

/** Before the first seal; its id is below every other. */
export const START: Link = { number: 0n, lastId: -(2n ** 63n), digest: new Uint8Array() };

/** The end of the chain, which the next seal begins from; or what it was at `time`. */
export async function endOfChain(tx: Transaction, time?: Date): Promise<Link> {
  const last = await tx.auditSeal.findFirst({
    where: { sealedAt: { lt: time } },
    orderBy: { number: 'desc' },
    select: { number: true, lastId: true, digest: true },
  });
  return last ?? START;
}

export interface Sealed extends Link {
  count: number;
}

/**
 * Adds a seal after `end`. `content` is a subquery of at most one row with last_id, count, entries, dropped_from and
 * dropped_to; without a row nothing is added. The chain must be locked.
 */
export async function addSeal(
  tx: Transaction,
  end: Link,
  content: Prisma.Sql,
  also = Prisma.empty,
): Promise<Sealed | undefined> {
  const [sealed] = await tx.$queryRaw<Sealed[]>`
    WITH ${also} seal AS (
      SELECT ${end.number + 1n}::bigint AS number, now()::timestamptz(3) AS sealed_at, ${end.lastId}::bigint AS after_id,
        last_id, count, entries, dropped_from, dropped_to, ${end.digest}::bytea AS previous
      FROM (${content}) AS content)
    INSERT INTO audit_seals
      (number, sealed_at, after_id, last_id, count, entries, dropped_from, dropped_to, previous, digest)
    SELECT *, ${DIGEST} FROM seal
    RETURNING number, last_id AS "lastId", count, digest`;
  return sealed;
}
