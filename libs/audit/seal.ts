import { Prisma, type Database, type Transaction } from '@longhaul/persistence';
import { addSeal, ENTRY, endOfChain, lockChain, type Link, type Sealed } from './chain.js';

/** Events of a seal at most. */
const BATCH = 10_000;
const TIMEOUT_MS = 60_000;

/**
 * Seals the events that have settled since the last time and notes their words for free text. Any number of workers may
 * call it; one at a time works, the others leave it to that one. Calls `onSeal` for each seal once it is stored. An event
 * is sealed by the second call after it was committed at the latest, unless an older transaction still runs.
 */
export async function sealEvents(db: Database, onSeal: (seal: Sealed) => void, stop?: AbortSignal) {
  let sealed: Sealed | undefined;
  do {
    sealed = await db.$transaction(sealBatch, { timeout: TIMEOUT_MS });
    if (sealed) onSeal(sealed);
  } while (sealed?.count === BATCH && !stop?.aborted);
}

/**
 * Nobody waits for the sealer, and it misses nobody: who writes an event has the number of its transaction before the id of
 * the event. So of the ids that were handed out when a mark is set, all belong to transactions with numbers below the mark's
 * own; once none of those runs any more, what there will ever be up to that id can be seen.
 */
async function sealBatch(tx: Transaction): Promise<Sealed | undefined> {
  if (!(await lockChain(tx))) return undefined;
  // Read before this transaction has a number itself, which becomes the mark's.
  const [ids] = await tx.$queryRaw<{ handedOut: bigint }[]>`
    SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END AS "handedOut" FROM audit_events_id_seq`;
  // A number that is still to come was given by another server, whose dump this is: what it ran is over.
  const [mark] = await tx.$queryRaw<{ lastId: bigint; settled: boolean }[]>`
    SELECT last_id AS "lastId", pg_snapshot_xmin(snapshot)::text::bigint >= xid
      OR pg_snapshot_xmax(snapshot)::text::bigint <= xid AS settled
    FROM audit_mark, pg_current_snapshot() AS snapshot`;
  if (!mark?.settled) return undefined;
  const sealed = await sealUpTo(tx, await endOfChain(tx), mark.lastId);
  if (sealed?.count !== BATCH && ids!.handedOut !== mark.lastId) {
    await tx.$executeRaw`
      UPDATE audit_mark SET last_id = ${ids!.handedOut}, xid = pg_current_xact_id()::text::bigint`;
  }
  return sealed;
}

function sealUpTo(tx: Transaction, end: Link, lastId: bigint): Promise<Sealed | undefined> {
  const batch = Prisma.sql`
    batch AS MATERIALIZED (
      SELECT id, at, ${ENTRY} AS entry, audit_words_of(tool, user_agent, arguments) AS words FROM audit_events AS stored
      WHERE id > ${end.lastId} AND id <= ${lastId} ORDER BY id LIMIT ${BATCH}),
    words AS (INSERT INTO audit_words (id, at, words) SELECT id, at, words FROM batch),`;
  const content = Prisma.sql`
    SELECT CASE WHEN count(*) < ${BATCH} THEN ${lastId} ELSE max(id) END AS last_id, count(*)::int AS count,
      string_agg(entry, '' ORDER BY id, at) AS entries,
      NULL::timestamptz(3) AS dropped_from, NULL::timestamptz(3) AS dropped_to
    FROM batch HAVING count(*) > 0`;
  return addSeal(tx, end, content, batch);
}
