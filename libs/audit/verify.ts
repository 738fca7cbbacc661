import type { Database } from '@longhaul/persistence';
import { DIGEST, ENTRY, ENTRY_BYTES, START, endOfChain, type Link } from './chain.js';

/** Seals that one statement compares with their events. */
const SEALS_AT_ONCE = 20;

export interface Finding {
  what: 'changed' | 'removed' | 'inserted' | 'reordered' | 'seal changed' | 'seal removed';
  /** Number of the seal. */
  seal: bigint;
  /** Not of a seal itself. */
  eventId?: bigint;
  /** When the event happened; of one that is not there any more, as it was sealed. */
  at?: Date;
  detail: string;
}

export interface Verification {
  seals: number;
  /** Events that are as they were sealed. */
  events: number;
  /** Sealed events that retention has dropped. */
  dropped: number;
  /** Events after the last seal, about which nothing can be said yet. */
  unsealed: number;
  /** The end of the chain: keep it elsewhere, and no seal up to it can be replaced. */
  head: { number: bigint; digest: string };
}

interface SealRow extends Link {
  count: number;
  previous: Uint8Array;
  computed: Uint8Array;
  /** Of the seal and of the events as they are now; null when both agree. */
  sealed: Uint8Array | null;
  actual: Uint8Array | null;
}

/** What was dropped by retention, as half-open ranges of milliseconds. */
type Dropped = { from: number; to: number }[];

/**
 * Recomputes every seal made since `since` (default: all) from its events, and tells `onFinding` what does not agree.
 * `head` is an end of the chain that was kept elsewhere; the seal of that number must still be that one.
 */
export async function verifyAudit(
  db: Database,
  { since, head }: { since?: Date; head?: { number: bigint; digest: string } },
  onFinding: (finding: Finding) => void,
): Promise<Verification> {
  const dropped = await droppedRanges(db);
  const result = { seals: 0, events: 0, dropped: 0 };
  let last = since ? await endOfChain(db, since) : START;
  for await (const seal of sealsAfter(db, last.number)) {
    for (const finding of faultsOfChain(seal, last)) onFinding(finding);
    if (head?.number === seal.number && head.digest !== hex(seal.digest)) {
      onFinding({
        what: 'seal changed',
        seal: seal.number,
        detail: 'is not the one that was kept elsewhere',
      });
    }
    const { findings, drops } = compare(seal, dropped);
    findings.forEach(onFinding);
    const missing = findings.filter(({ what }) => what !== 'inserted').length;
    result.seals++;
    result.dropped += drops;
    result.events += seal.count - drops - missing;
    last = seal;
  }
  const tail = await unsealed(db, last);
  if (tail.withWords > 0 || (head && head.number > last.number)) {
    const detail = `is missing: ${tail.withWords || 'some'} of the events after the last seal have been sealed`;
    onFinding({ what: 'seal removed', seal: last.number + 1n, detail });
  }
  return { ...result, unsealed: tail.events, head: { number: last.number, digest: hex(last.digest) } };
}

/** Each statement sees seals and events at one moment. */
async function* sealsAfter(db: Database, after: bigint): AsyncGenerator<SealRow> {
  for (;;) {
    const rows = await db.$queryRaw<SealRow[]>`
      SELECT number, last_id AS "lastId", count, previous, digest, ${DIGEST} AS computed,
        CASE WHEN entries <> actual THEN entries END AS sealed, CASE WHEN entries <> actual THEN actual END AS actual
      FROM (SELECT * FROM audit_seals WHERE number > ${after} ORDER BY number
        LIMIT ${SEALS_AT_ONCE}) AS seal,
      LATERAL (
        SELECT coalesce(string_agg(${ENTRY}, '' ORDER BY id, at), '') AS actual FROM audit_events AS stored
        WHERE id > seal.after_id AND id <= seal.last_id) AS now
      ORDER BY number`;
    yield* rows;
    if (rows.length < SEALS_AT_ONCE) return;
    after = rows.at(-1)!.number;
  }
}

/** Words are noted together with the seal, so they tell of one that is gone. */
async function unsealed(db: Database, last: Link): Promise<{ events: number; withWords: number }> {
  const [row] = await db.$queryRaw<{ events: number; withWords: number }[]>`
    SELECT count(*)::int AS events,
      (count(words) FILTER (WHERE NOT EXISTS (SELECT FROM audit_seals WHERE number > ${last.number})))::int AS "withWords"
    FROM audit_events AS stored LEFT JOIN audit_words USING (at, id) WHERE stored.id > ${last.lastId}`;
  return row!;
}

async function droppedRanges(db: Database): Promise<Dropped> {
  const rows = await db.auditSeal.findMany({
    where: { droppedFrom: { not: null } },
    select: { droppedFrom: true, droppedTo: true },
  });
  return rows.map(({ droppedFrom, droppedTo }) => ({ from: Number(droppedFrom), to: Number(droppedTo) }));
}

function* faultsOfChain(seal: SealRow, last: Link): Generator<Finding> {
  const { number } = seal;
  if (number > last.number + 1n) {
    const gap = number === last.number + 2n ? '' : `, as are all up to ${number - 1n}`;
    yield { what: 'seal removed', seal: last.number + 1n, detail: `is missing${gap}` };
  } else if (hex(seal.previous) !== hex(last.digest)) {
    yield { what: 'seal changed', seal: last.number, detail: 'is not the one that its successor continues' };
  }
  if (hex(seal.digest) !== hex(seal.computed)) {
    yield { what: 'seal changed', seal: number, detail: 'does not have the digest of its content' };
  }
}

interface Entry {
  id: bigint;
  at: Date;
  hash: string;
  /** All of it. */
  key: string;
}

/** Of the seal's events that differ, which one is which: by their ids first, then by their content. */
function compare(seal: SealRow, dropped: Dropped): { findings: Finding[]; drops: number } {
  if (!seal.sealed || !seal.actual) return { findings: [], drops: 0 };
  const [was, is] = [entriesOf(seal.sealed), entriesOf(seal.actual)];
  const [wasKeys, isKeys] = [was, is].map((entries) => new Set(entries.map(({ key }) => key)));
  const gone = was.filter(({ key }) => !isKeys!.has(key));
  const extra = new Set(is.filter(({ key }) => !wasKeys!.has(key)));
  const byId = new Map([...extra].map((entry) => [entry.id, entry]));
  const byHash = new Map([...extra].map((entry) => [entry.hash, entry]));
  const sealedAs = new Map(gone.map((entry) => [entry.hash, entry]));

  const findings: Finding[] = [];
  let drops = 0;
  for (const old of gone) {
    const now = byId.get(old.id) ?? byHash.get(old.hash);
    if (now && extra.delete(now)) {
      findings.push({ ...difference(old, now, sealedAs), seal: seal.number, eventId: old.id, at: old.at });
    } else if (dropped.some(({ from, to }) => from <= Number(old.at) && Number(old.at) < to)) {
      drops++;
    } else {
      findings.push({
        what: 'removed',
        seal: seal.number,
        eventId: old.id,
        at: old.at,
        detail: 'is not there any more',
      });
    }
  }
  for (const { id, at } of extra) {
    const detail = 'was not there when its neighbours were sealed';
    findings.push({ what: 'inserted', seal: seal.number, eventId: id, at, detail });
  }
  return { findings, drops };
}

function difference(old: Entry, now: Entry, sealedAs: Map<string, Entry>): Pick<Finding, 'what' | 'detail'> {
  if (old.id !== now.id) return { what: 'reordered', detail: `is now event ${now.id}` };
  const other = sealedAs.get(now.hash);
  if (other && other !== old)
    return { what: 'reordered', detail: `holds what was sealed as event ${other.id}` };
  if (old.hash !== now.hash) return { what: 'changed', detail: 'is not as it was sealed' };
  return { what: 'reordered', detail: `has the time ${now.at.toISOString()} now` };
}

function entriesOf(bytes: Uint8Array): Entry[] {
  const buffer = Buffer.from(bytes);
  return Array.from({ length: buffer.length / ENTRY_BYTES }, (_, index) => {
    const entry = buffer.subarray(index * ENTRY_BYTES, (index + 1) * ENTRY_BYTES);
    return {
      id: entry.readBigInt64BE(0),
      at: new Date(Number(entry.readBigInt64BE(8))),
      hash: entry.toString('hex', 16),
      key: entry.toString('latin1'),
    };
  });
}

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
