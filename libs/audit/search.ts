import { AppError } from '@longhaul/errors';
import { Prisma, camelKeys, parseId, type AuditEvent, type Database } from '@longhaul/persistence';
import { endOfChain } from './chain.js';

/** What an event must have, all of it. */
export interface AuditFilter {
  userId?: string;
  customer?: string;
  projectId?: string;
  vmId?: string;
  tokenId?: string;
  /** Of OAuth. */
  clientId?: string;
  tool?: string;
  result?: string;
  code?: string;
  ip?: string;
  jobId?: string;
  requestId?: string;
  traceId?: string;
  event?: string;
  /** From then on. */
  from?: Date;
  /** Before then. */
  to?: Date;
  /** Words that all begin words of the tool, the user agent or the arguments. Needs `from` and `to`, at most 31 days apart. */
  text?: string;
}

export interface AuditPage {
  /** Newest first. */
  events: AuditEvent[];
  /** Where the next page begins; undefined on the last one. */
  cursor?: string;
}

export const PAGE_MAX = 200;
const TEXT_DAYS_MAX = 31;
const TEXT_WORDS_MAX = 10;
const EXPORT_PAGE = 1_000;
/** Combinations of filters that no index helps end here, before they hold up calls. */
const TIMEOUT_MS = 10_000;

const UUIDS = {
  userId: 'user_id',
  projectId: 'project_id',
  vmId: 'vm_id',
  tokenId: 'token_id',
  jobId: 'job_id',
};
const TEXTS = {
  customer: 'customer',
  clientId: 'client_id',
  tool: 'tool',
  result: 'result',
  code: 'code',
  ip: 'ip',
  requestId: 'request_id',
  traceId: 'trace_id',
  event: 'event',
};

interface Position {
  at: Date;
  id: bigint;
}

/**
 * One page of at most `limit` (1–200) events. Following cursors gives each event once, whatever is written meanwhile.
 * Errors: AppError `invalid_arguments` (cursor, ids, text), `unavailable` when it takes longer than 10 s.
 */
export async function searchAudit(
  db: Database,
  filter: AuditFilter,
  { limit = 50, cursor }: { limit?: number; cursor?: string } = {},
): Promise<AuditPage> {
  const count = Math.min(Math.max(1, limit), PAGE_MAX);
  const found = await find(db, filter, count + 1, cursor === undefined ? undefined : parseCursor(cursor));
  const events = found.slice(0, count);
  return { events, ...(found.length > count && { cursor: cursorOf(events.at(-1)!) }) };
}

/** All events that match, newest first, read in pages as they are taken, so that an export of any size needs little memory. */
export async function* exportAudit(db: Database, filter: AuditFilter): AsyncGenerator<AuditEvent> {
  let after: Position | undefined;
  for (;;) {
    const events: AuditEvent[] = await find(db, filter, EXPORT_PAGE, after);
    yield* events;
    if (events.length < EXPORT_PAGE) return;
    after = events.at(-1);
  }
}

async function find(
  db: Database,
  filter: AuditFilter,
  limit: number,
  after?: Position,
): Promise<AuditEvent[]> {
  const matches = [...conditions(filter), ...within(filter, after)];
  const plain = Prisma.sql`SELECT * FROM audit_events AS stored ${where(matches)} ${newestFirst(limit)}`;
  const query = filter.text === undefined ? plain : await textQuery(db, filter, matches, limit, after);
  try {
    const [, rows] = await db.$transaction([
      db.$queryRaw`SELECT set_config('statement_timeout', ${String(TIMEOUT_MS)}, true)`,
      db.$queryRaw<object[]>(query),
    ]);
    return rows.map((row) => camelKeys<AuditEvent>(row));
  } catch (error) {
    if (!/statement timeout/.test(String(error))) throw error;
    throw new AppError('unavailable', 'The search takes too long. Narrow its dates, or leave out filters.');
  }
}

/**
 * By the words that were noted when events were sealed, or of the events themselves where that is still to come; what is
 * sealed meanwhile is found by both. The inner LIMIT tells the planner that a word has one event: it goes by time where many
 * have the word, and by the word where few do.
 */
async function textQuery(
  db: Database,
  filter: AuditFilter,
  matches: Prisma.Sql[],
  limit: number,
  after?: Position,
): Promise<Prisma.Sql> {
  const words = wordsOf(filter);
  const { lastId } = await endOfChain(db);
  const noted = where([Prisma.sql`words @@ ${words}::tsquery`, ...within(filter, after)]);
  const theirs = where([Prisma.sql`at = noted.at`, Prisma.sql`id = noted.id`, ...matches]);
  const others = where([
    Prisma.sql`id > ${lastId}::bigint`,
    Prisma.sql`audit_words_of(tool, user_agent, arguments) @@ ${words}::tsquery`,
    ...matches,
  ]);
  return Prisma.sql`
    (SELECT stored.* FROM (SELECT at, id FROM audit_words ${noted}) AS noted,
      LATERAL (SELECT * FROM audit_events ${theirs} LIMIT 1) AS stored
      ORDER BY noted.at DESC, noted.id DESC LIMIT ${limit})
    UNION
    (SELECT * FROM audit_events ${others} ${newestFirst(limit)})
    ${newestFirst(limit)}`;
}

const newestFirst = (limit: number) => Prisma.sql`ORDER BY at DESC, id DESC LIMIT ${limit}`;

const where = (all: Prisma.Sql[]) =>
  all.length > 0 ? Prisma.sql`WHERE ${Prisma.join(all, ' AND ')}` : Prisma.empty;

function conditions(filter: AuditFilter): Prisma.Sql[] {
  const all: Prisma.Sql[] = [];
  for (const [key, column] of Object.entries(UUIDS)) {
    const value = filter[key as keyof typeof UUIDS];
    if (value === undefined) continue;
    const id = parseId(value);
    if (!id) throw new AppError('invalid_arguments', `${column} is not an id.`);
    all.push(Prisma.sql`${Prisma.raw(column)} = ${id}::uuid`);
  }
  for (const [key, column] of Object.entries(TEXTS)) {
    const value = filter[key as keyof typeof TEXTS];
    // NUL is in no text of PostgreSQL's.
    if (value !== undefined)
      all.push(Prisma.sql`${Prisma.raw(column)} = ${value.replaceAll('\0', '\uFFFD')}`);
  }
  return all;
}

/** The second bound on the time says what the first implies, in words that leave partitions out. */
function within({ from, to }: AuditFilter, after?: Position): Prisma.Sql[] {
  return [
    ...(from ? [Prisma.sql`at >= ${from}::timestamptz`] : []),
    ...(to ? [Prisma.sql`at < ${to}::timestamptz`] : []),
    ...(after
      ? [
          Prisma.sql`(at, id) < (${after.at}::timestamptz, ${after.id}::bigint)`,
          Prisma.sql`at <= ${after.at}::timestamptz`,
        ]
      : []),
  ];
}

/** Words as they are taken apart for the index. A single letter begins too much, and stands for itself. */
function wordsOf({ text = '', from, to }: AuditFilter): string {
  const days = from && to ? (to.getTime() - from.getTime()) / 86_400_000 : Infinity;
  if (days > TEXT_DAYS_MAX)
    throw new AppError(
      'invalid_arguments',
      `Free text needs from and to, at most ${TEXT_DAYS_MAX} days apart.`,
    );
  const words = text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  if (words.length === 0 || words.length > TEXT_WORDS_MAX)
    throw new AppError('invalid_arguments', `Free text needs 1 to ${TEXT_WORDS_MAX} words.`);
  return words.map((word) => (word.length > 1 ? `'${word}':*` : `'${word}'`)).join(' & ');
}

const cursorOf = ({ at, id }: Position) => Buffer.from(`${at.toISOString()} ${id}`).toString('base64url');

function parseCursor(cursor: string): Position {
  const [, time = '', id = ''] =
    /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) (-?\d{1,18})$/.exec(
      Buffer.from(cursor, 'base64url').toString(),
    ) ?? [];
  const at = new Date(time);
  if (Number.isNaN(at.getTime())) throw new AppError('invalid_arguments', 'The cursor is not one of ours.');
  return { at, id: BigInt(id) };
}
