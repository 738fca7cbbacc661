import { newId } from '@longhaul/persistence';
import pg from 'pg';
import { testDatabase, type TestDatabase } from '../../test/support/database.js';
import { eventually } from '../../test/support/eventually.js';
import { sealEvents } from './seal.js';
import { verifyAudit, type Finding } from './verify.js';

let test: TestDatabase;
beforeEach(async () => {
  test = await testDatabase();
});
afterEach(() => test.drop());

/** Twice, as the first time only marks what there is. */
async function sealTwice(): Promise<number> {
  let count = 0;
  for (let round = 0; round < 2; round++) await sealEvents(test.db, (sealed) => (count += sealed.count));
  return count;
}

/** All that is committed; transactions of other databases of the server may make it wait. */
async function seal(): Promise<number> {
  let count = 0;
  await eventually(async () => {
    count += await sealTwice();
    return (await verify()).unsealed === 0;
  });
  return count;
}

async function verify(options: Parameters<typeof verifyAudit>[1] = {}) {
  const findings: Finding[] = [];
  const result = await verifyAudit(test.db, options, (finding) => findings.push(finding));
  return { ...result, findings };
}

async function record(count: number): Promise<bigint[]> {
  const requestId = newId();
  for (let n = 0; n < count; n++)
    await test.audit.record({ event: 'call', tool: `tool-${n}`, arguments: { n, nothing: null }, requestId });
  const events = await test.db.auditEvent.findMany({ where: { requestId }, orderBy: { id: 'asc' } });
  return events.map(({ id }) => id);
}

/** What the database's owner could do, and nobody else: change it behind the triggers. */
async function tamper(...statements: string[]): Promise<void> {
  const client = new pg.Client({ connectionString: test.url });
  await client.connect();
  const tables = ['audit_events', 'audit_seals', 'audit_words', 'audit_words_default'];
  const switchTriggers = (how: string) =>
    Promise.all(tables.map((table) => client.query(`ALTER TABLE ${table} ${how} TRIGGER audit_append_only`)));
  try {
    await switchTriggers('DISABLE');
    for (const statement of statements) await client.query(statement);
    await switchTriggers('ENABLE ALWAYS');
  } finally {
    await client.end();
  }
}

const named = (findings: Finding[]) => findings.map(({ what, eventId }) => [what, eventId]);

it('finds nothing where nothing was done', async () => {
  await record(3);
  expect(await seal()).toBe(3);
  await record(2);
  expect(await verify()).toMatchObject({ seals: 1, events: 3, unsealed: 2, findings: [] });
  await seal();
  expect(await verify()).toMatchObject({ seals: 2, events: 5, unsealed: 0, findings: [] });
});

it.each(['tool', 'code', 'user_agent', 'customer'])('names an event whose %s was edited', async (column) => {
  const [, second] = await record(3);
  await seal();
  await tamper(`UPDATE audit_events SET ${column} = 'else' WHERE id = ${second}`);
  expect(named((await verify()).findings)).toEqual([['changed', second]]);
});

it('names an event of which a null in the arguments was removed', async () => {
  const [, second] = await record(3);
  await seal();
  await tamper(`UPDATE audit_events SET arguments = arguments - 'nothing' WHERE id = ${second}`);
  expect(named((await verify()).findings)).toEqual([['changed', second]]);
});

it('names an event that was deleted, with its time', async () => {
  const [, second] = await record(3);
  const { at } = await test.db.auditEvent.findFirstOrThrow({ where: { id: second } });
  await seal();
  await tamper(`DELETE FROM audit_events WHERE id = ${second}`);
  const { findings, events } = await verify();
  expect(findings).toMatchObject([{ what: 'removed', eventId: second, at }]);
  expect(events).toBe(2);
});

it('names an event that was inserted', async () => {
  const [first] = await record(3);
  await test.db.$executeRaw`SELECT nextval('audit_events_id_seq') FROM generate_series(1, 5)`;
  const [last] = await record(1);
  await seal();
  await tamper(
    `INSERT INTO audit_events (id, event) VALUES (${last! - 2n}, 'call'), (${first! - 9n}, 'call')`,
  );
  expect(named((await verify()).findings)).toEqual([
    ['inserted', first! - 9n],
    ['inserted', last! - 2n],
  ]);
});

it('names events whose order was changed, by their ids or by their times', async () => {
  const [first, second, third] = await record(3);
  await seal();
  await tamper(
    `UPDATE audit_events SET id = CASE id WHEN ${first} THEN ${second} ELSE ${first} END WHERE id IN (${first}, ${second})`,
    `UPDATE audit_events SET at = at - interval '1 hour' WHERE id = ${third}`,
  );
  expect(named((await verify()).findings)).toEqual([
    ['reordered', first],
    ['reordered', second],
    ['reordered', third],
  ]);
});

it('names seals that were changed or deleted', async () => {
  for (let n = 0; n < 4; n++) {
    await record(2);
    await seal();
  }
  const kept = (await verify()).head;
  expect(kept.number).toBe(4n);
  await tamper(`UPDATE audit_seals SET sealed_at = sealed_at - interval '1 day' WHERE number = 3`);
  expect((await verify()).findings).toMatchObject([{ what: 'seal changed', seal: 3n }]);
  await tamper('DELETE FROM audit_seals WHERE number = 2', 'DELETE FROM audit_seals WHERE number = 3');
  expect((await verify()).findings).toMatchObject([{ what: 'seal removed', seal: 2n }]);
  await tamper('DELETE FROM audit_seals WHERE number = 4');
  expect((await verify()).findings).toMatchObject([{ what: 'seal removed', seal: 2n }]);
  expect((await verify({ head: kept })).findings).toMatchObject([{ what: 'seal removed', seal: 2n }]);
  await expect(sealTwice()).rejects.toThrow('audit_words');
});

it('finds a seal that was made anew, digests and all, by the end of the chain that was kept elsewhere', async () => {
  const [first] = await record(2);
  await seal();
  const kept = (await verify()).head;
  await tamper(
    'DELETE FROM audit_seals',
    'DELETE FROM audit_words',
    `UPDATE audit_events SET tool = 'else' WHERE id = ${first}`,
  );
  expect((await verify({ head: kept })).findings).toMatchObject([{ what: 'seal removed', seal: 1n }]);
  await seal();
  expect((await verify()).findings).toEqual([]);
  expect((await verify({ head: kept })).findings).toMatchObject([{ what: 'seal changed', seal: 1n }]);
});

it('verifies what was sealed since a time', async () => {
  const [first] = await record(1);
  await seal();
  const since = new Date(Date.now() + 1);
  await test.db.$executeRaw`SELECT pg_sleep(0.01)`;
  const [second] = await record(1);
  await seal();
  await tamper(`UPDATE audit_events SET tool = 'else' WHERE id IN (${first}, ${second})`);
  expect(named((await verify()).findings)).toHaveLength(2);
  expect(named((await verify({ since })).findings)).toEqual([['changed', second]]);
  expect(await verify({ since: new Date() })).toMatchObject({ seals: 0, findings: [] });
});

it('seals in batches', async () => {
  await test.db.$executeRaw`INSERT INTO audit_events (event) SELECT 'call' FROM generate_series(1, 25000)`;
  expect(await seal()).toBe(25_000);
  expect(await verify()).toMatchObject({ seals: 3, events: 25_000, findings: [] });
});

it('misses no event of writers that commit late, and waits for none', async () => {
  const stop = new AbortController();
  let sealed = 0;
  const sealers = [1, 2].map(async () => {
    while (!stop.signal.aborted) await sealEvents(test.db, ({ count }) => (sealed += count));
  });
  let written = 0;
  const writer = async (pauseMs: number, rounds: number) => {
    const client = new pg.Client({ connectionString: test.url });
    await client.connect();
    for (let round = 0; round < rounds; round++) {
      await client.query('BEGIN');
      await client.query(`INSERT INTO audit_events (event) VALUES ('call'), ('call')`);
      await client.query(`SELECT pg_sleep(${pauseMs / 1_000})`);
      await client.query(`INSERT INTO audit_events (event) VALUES ('call')`);
      const commits = round % 5 > 0;
      await client.query(commits ? 'COMMIT' : 'ROLLBACK');
      if (commits) written += 3;
    }
    await client.end();
  };
  await Promise.all([writer(0, 300), writer(1, 200), writer(20, 40), writer(150, 14), writer(400, 5)]);
  stop.abort();
  await Promise.all(sealers);
  await seal();
  sealed = (await test.db.auditSeal.aggregate({ _sum: { count: true } }))._sum.count!;
  expect(sealed).toBe(written);
  const { seals, events, unsealed, findings } = await verify();
  expect({ events, unsealed, findings }).toEqual({ events: written, unsealed: 0, findings: [] });
  expect(seals).toBeGreaterThan(2);
});

it('waits with sealing for a transaction that has an id of an event already', async () => {
  const client = new pg.Client({ connectionString: test.url });
  await client.connect();
  await client.query('BEGIN');
  await client.query(`INSERT INTO audit_events (event) VALUES ('call')`);
  await record(2);
  expect(await sealTwice()).toBe(0);
  await client.query('COMMIT');
  await client.end();
  expect(await seal()).toBe(3);
});

it('goes on after the database was restored on a server that counts transactions anew', async () => {
  await record(2);
  await sealEvents(test.db, () => undefined);
  await test.db.$executeRaw`UPDATE audit_mark SET xid = xid + 1000000000`;
  expect(await seal()).toBe(2);
});
