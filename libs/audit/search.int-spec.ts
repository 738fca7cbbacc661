import { newId } from '@longhaul/persistence';
import { makeUser, makeVm, testDatabase, type TestDatabase } from '../../test/support/database.js';
import type { AuditEntry } from './audit.js';
import { PAGE_MAX, type AuditFilter } from './search.js';
import { sealEvents } from './seal.js';

let test: TestDatabase;
beforeAll(async () => {
  test = await testDatabase();
});
afterAll(() => test.drop());

const record = (entry: Partial<AuditEntry>) => test.audit.record({ event: 'call', ...entry });
const now = Date.now();
const day = (n: number) => new Date(now + n * 86_400_000);
const month = { from: day(-30), to: day(1) };

async function ids(filter: AuditFilter): Promise<bigint[]> {
  return (await test.audit.search(filter)).events.map(({ id }) => id);
}

async function seal(): Promise<void> {
  for (let round = 0; round < 2; round++) await sealEvents(test.db, () => undefined);
}

it('finds by every filter what has that value, and nothing else', async () => {
  const { caller } = await makeUser(test.db);
  const vm = await makeVm(test.db, caller);
  await test.db.project.update({ where: { id: vm.projectId }, data: { customer: 'acme' } });
  const entry: AuditEntry = {
    event: 'job.answered',
    userId: caller.userId,
    tokenId: caller.tokenId,
    clientId: 'https://client.example',
    projectId: vm.projectId,
    vmId: vm.id,
    jobId: newId(),
    tool: 'exec_command',
    result: 'refused',
    code: 'vm_busy',
    requestId: newId(),
    traceId: 'ab'.repeat(16),
    ip: '198.51.100.7',
  };
  await record(entry);
  await record({ tool: 'whoami', result: 'ok' });
  const { durationMs, ...filter } = { durationMs: undefined, customer: 'acme', ...entry };
  expect(durationMs).toBeUndefined();
  for (const [name, value] of Object.entries(filter)) {
    const { events } = await test.audit.search({ [name]: value, ...month });
    expect(events).toEqual([expect.objectContaining({ [name]: value, customer: 'acme' })]);
  }
  expect(await ids(filter as AuditFilter)).toHaveLength(1);
  expect(await ids({ ...(filter as AuditFilter), result: 'ok' })).toEqual([]);
  expect(await ids({ userId: caller.userId, to: day(-1) })).toEqual([]);
});

it('pages give each event once and none twice, while more come in', async () => {
  const requestId = newId();
  const total = 2 * PAGE_MAX + 7;
  // Of one moment, so that only ids tell them apart.
  await Promise.all(Array.from({ length: total }, () => record({ requestId })));
  const before = await test.db.auditEvent.findMany({
    where: { requestId },
    orderBy: [{ at: 'desc' }, { id: 'desc' }],
  });
  const seen: bigint[] = [];
  let cursor: string | undefined;
  do {
    const page = await test.audit.search({ requestId }, { limit: 50, cursor });
    seen.push(...page.events.map(({ id }) => id));
    cursor = page.cursor;
    await record({ requestId });
  } while (cursor);
  expect(seen).toEqual(before.map(({ id }) => id));
});

it('exports all that matches, newest first, in pages of its own', async () => {
  const requestId = newId();
  await test.db.$executeRaw`
    INSERT INTO audit_events (event, request_id, at) SELECT 'call', ${requestId}, now() - n * interval '1 second'
    FROM generate_series(1, 2500) AS n`;
  const times: number[] = [];
  for await (const { at } of test.audit.export({ requestId })) times.push(at.getTime());
  expect(times).toHaveLength(2_500);
  expect(times).toEqual(times.toSorted((a, b) => b - a));
});

describe('free text', () => {
  const tag = `tag${newId().slice(0, 8)}`;
  const find = (text: string, filter: AuditFilter = {}) => ids({ text, ...month, ...filter });

  it('finds words and their beginnings in tool, user agent and arguments, sealed or not', async () => {
    const command = `systemctl restart "nginx" --path=/etc/${tag}.d/web-1.conf <b>bold</b>`;
    await record({ tool: 'exec_command', userAgent: 'agent/2.1', arguments: { command } });
    await record({ tool: 'exec_command', arguments: { command: `echo ${tag}` } });
    for (const state of ['not sealed', 'sealed']) {
      expect([state, (await find(tag)).length]).toEqual([state, 2]);
      for (const text of [
        `${tag} nginx`,
        `${tag.slice(0, 9)} RESTART`,
        `/etc/${tag}`,
        `${tag} agent/2`,
        `${tag} web-1`,
        `${tag} bold`,
        `exec_command ${tag} systemctl`,
      ])
        expect([text, (await find(text)).length]).toEqual([text, 1]);
      expect(await find(`${tag} apache`)).toEqual([]);
      expect(await find(tag, { tool: 'whoami' })).toEqual([]);
      expect(await find(tag, { tool: 'exec_command' })).toHaveLength(2);
      await seal();
    }
  });

  it('pages across what is sealed and what is not', async () => {
    const word = `w${newId().slice(0, 8)}`;
    for (let n = 0; n < 12; n++) {
      await record({ arguments: { word } });
      if (n === 7) await seal();
    }
    const seen: bigint[] = [];
    let cursor: string | undefined;
    do {
      const page = await test.audit.search({ text: word, ...month }, { limit: 5, cursor });
      seen.push(...page.events.map(({ id }) => id));
      cursor = page.cursor;
    } while (cursor);
    expect(seen).toHaveLength(12);
    expect(seen).toEqual([...seen].sort((a, b) => Number(b - a)));
  });
});

it.each<[string, AuditFilter & { cursor?: string }]>([
  ['free text without dates', { text: 'nginx' }],
  ['free text over more than 31 days', { text: 'nginx', from: day(-32), to: day(0) }],
  ['free text without a word', { text: `!';`, ...month }],
  ['free text of too many words', { text: 'a '.repeat(11), ...month }],
  ['an id that is none', { userId: `'; DROP TABLE audit_events; --` }],
  ['a cursor that is none', { cursor: 'bm9uc2Vuc2U' }],
  [
    'a cursor of a day that is none',
    { cursor: Buffer.from('2026-13-41T00:00:00.000Z 1').toString('base64url') },
  ],
])('refuses %s', async (_what, { cursor, ...filter }) => {
  await expect(test.audit.search(filter, { cursor })).rejects.toMatchObject({ code: 'invalid_arguments' });
});

it.each<AuditFilter>([
  { tool: `'; DROP TABLE audit_events; --` },
  { ip: '\0' },
  { text: `' | 'a':* & !b \\ ''`, ...month },
])('takes %j for a value', async (filter) => {
  expect(await ids(filter)).toEqual([]);
});

it('keeps to its bounds', async () => {
  expect((await test.audit.search({}, { limit: 1e9 })).events).toHaveLength(PAGE_MAX);
  expect((await test.audit.search({}, { limit: -1 })).events).toHaveLength(1);
});
