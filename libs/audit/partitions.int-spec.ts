import { newId } from '@longhaul/persistence';
import pg from 'pg';
import { testDatabase, type TestDatabase } from '../../test/support/database.js';
import { eventually } from '../../test/support/eventually.js';
import { dropExpired, makePartitions } from './partitions.js';
import { sealEvents } from './seal.js';
import { verifyAudit, type Finding } from './verify.js';

let test: TestDatabase;
let owner: pg.Client;
beforeEach(async () => {
  test = await testDatabase();
  owner = new pg.Client({ connectionString: test.url });
  await owner.connect();
});
afterEach(async () => {
  await owner.end();
  await test.drop();
});

const MONTHS = ['this month', 'in one month', 'in two months', 'in three months'];

async function partitions(): Promise<string[]> {
  const { rows } = await owner.query<{ name: string }>(
    `SELECT inhrelid::regclass::text AS name FROM pg_inherits
     WHERE inhparent IN ('audit_events'::regclass, 'audit_words'::regclass) ORDER BY 1`,
  );
  return rows.map(({ name }) => name);
}

async function insertAt(at: string): Promise<string> {
  const { rows } = await owner.query<{ part: string }>(
    `INSERT INTO audit_events (event, at) VALUES ('call', ${at}) RETURNING tableoid::regclass::text AS part`,
  );
  return rows[0]!.part;
}

/** Makes the partition of a past month, which nobody does in earnest. */
const makeMonth = (ago: string) =>
  owner.query(
    `SELECT audit_make_partition(date_trunc('month', now() AT TIME ZONE 'UTC' - interval '${ago}'))`,
  );

/** All that is committed; transactions of other databases of the server may make it wait. */
async function seal(): Promise<void> {
  await eventually(async () => {
    await sealEvents(test.db, () => undefined);
    return (await verify()).unsealed === 0;
  });
}

async function verify() {
  const findings: Finding[] = [];
  return { ...(await verifyAudit(test.db, {}, (finding) => findings.push(finding))), findings };
}

it('events go to the partition of their month in UTC, which is there ahead of it', async () => {
  for (let n = 0; n < MONTHS.length; n++) {
    const { rows } = await owner.query<{ name: string }>(
      `SELECT to_char(now() AT TIME ZONE 'UTC' + interval '${n} months', '"audit_events"_YYYY_MM') AS name`,
    );
    expect(await insertAt(`now() + interval '${n} months'`)).toBe(rows[0]!.name);
  }
});

it('makes partitions that are missing, whoever asks, together with others that ask', async () => {
  const before = await partitions();
  for (const name of before.filter((name) => !name.endsWith('default')))
    await owner.query(`DROP TABLE ${name}`);
  await Promise.all([1, 2, 3].map(() => makePartitions(test.db)));
  expect(await partitions()).toEqual(before);
  await makePartitions(test.db);
  expect(await partitions()).toEqual(before);
});

it('takes events of a month that nobody has made, and keeps them in order and under seal', async () => {
  const name = (await partitions()).find((name) => /events_2/.test(name))!;
  await owner.query(`DROP TABLE ${name}`);
  await test.audit.record({ event: 'call', tool: 'whoami' });
  expect(await test.db.$queryRaw`SELECT count(*)::int FROM audit_events_default`).toEqual([{ count: 1 }]);
  await makePartitions(test.db);
  expect(await partitions()).not.toContain(name);
  await seal();
  expect(await verify()).toMatchObject({ events: 1, findings: [] });
});

it.each(['audit_events', 'audit_seals', 'audit_words', 'audit_events_default', 'a partition'])(
  'nobody changes, deletes or empties %s, whatever the session says',
  async (what) => {
    await test.audit.record({ event: 'call' });
    await seal();
    const table = what === 'a partition' ? (await partitions())[0]! : what;
    for (const role of ['origin', 'replica']) {
      await owner.query(`SET session_replication_role = ${role}`);
      const column = { audit_seals: 'number', audit_words: 'id' }[table] ?? 'event';
      for (const statement of [
        `UPDATE ${table} SET ${column} = ${column}`,
        `DELETE FROM ${table}`,
        `TRUNCATE ${table}`,
      ]) {
        await expect(owner.query(statement)).rejects.toThrow('append-only');
      }
    }
  },
);

describe('retention', () => {
  it('drops whole months that are too old, records it, and verify knows', async () => {
    await makeMonth('14 months');
    await makeMonth('3 months');
    for (const ago of ['14 months', '14 months', '3 months', '0'])
      await insertAt(
        `date_trunc('month', now() AT TIME ZONE 'UTC') - interval '${ago}' + interval '1 minute'`,
      );
    // Neither sealed nor old enough: stays.
    expect(await dropExpired(test.db, 365)).toEqual([]);
    await seal();
    expect(await dropExpired(test.db, 500)).toEqual([]);

    const before = await partitions();
    const dropped = await dropExpired(test.db, 365);
    expect(dropped).toEqual([expect.stringMatching(/^audit_events_\d{4}_\d\d$/)]);
    const words = dropped[0]!.replace('events', 'words');
    expect(await partitions()).toEqual(before.filter((name) => name !== dropped[0] && name !== words));
    expect(await verify()).toMatchObject({ seals: 2, events: 2, dropped: 2, findings: [] });
    expect(await dropExpired(test.db, 365)).toEqual([]);
  });

  it('does not excuse an event that was removed otherwise', async () => {
    await makeMonth('14 months');
    await insertAt(`now() - interval '14 months'`);
    await insertAt('now()');
    await seal();
    await dropExpired(test.db, 365);
    const part = (await partitions()).find((name) => /events_2/.test(name))!;
    await owner.query(`ALTER TABLE ${part} DISABLE TRIGGER ALL; DELETE FROM ${part}`);
    expect(await verify()).toMatchObject({ events: 0, dropped: 1, findings: [{ what: 'removed' }] });
  });

  it('drops what went to the default partition, and makes a new one', async () => {
    await insertAt(`now() - interval '14 months'`);
    await seal();
    expect(await dropExpired(test.db, 365)).toEqual(['audit_events_default']);
    expect(await verify()).toMatchObject({ events: 0, dropped: 1, findings: [] });
    expect(await insertAt(`now() - interval '14 months'`)).toBe('audit_events_default');
    await expect(owner.query('DELETE FROM audit_events_default')).rejects.toThrow('append-only');
  });

  it('waits for nobody who reads for long', async () => {
    await makeMonth('14 months');
    await insertAt(`now() - interval '14 months'`);
    await seal();
    await owner.query('BEGIN');
    await owner.query('SELECT count(*) FROM audit_events');
    await expect(dropExpired(test.db, 365)).rejects.toThrow('lock timeout');
    await owner.query('COMMIT');
    expect(await dropExpired(test.db, 365)).toHaveLength(1);
  });
});

describe('a login in the role longhaul_app', () => {
  const login = `app_${newId().slice(0, 8)}`;
  let app: pg.Client;
  beforeEach(async () => {
    await owner.query(`CREATE ROLE ${login} LOGIN PASSWORD 'app' IN ROLE longhaul_app`);
    const url = new URL(test.url);
    url.username = login;
    url.password = 'app';
    app = new pg.Client({ connectionString: url.href });
    await app.connect();
  });
  afterEach(async () => {
    await app.end();
    await owner.query(`DROP ROLE ${login}`);
  });

  it.each([
    `UPDATE audit_events SET event = event`,
    `DELETE FROM audit_events`,
    `TRUNCATE audit_events`,
    `DELETE FROM audit_events_default`,
    `SELECT * FROM audit_events_default`,
    `INSERT INTO audit_events (at, event) VALUES (now() - interval '1 year', 'call')`,
    `INSERT INTO audit_events (id, event) VALUES (1, 'call')`,
    `INSERT INTO audit_events_default (event) VALUES ('call')`,
    `ALTER TABLE audit_events DISABLE TRIGGER ALL`,
    `SET session_replication_role = replica`,
    `DROP TABLE audit_events`,
    `SELECT setval('audit_events_id_seq', 1)`,
    `UPDATE audit_seals SET count = 0`,
    `DELETE FROM audit_seals`,
    `DELETE FROM audit_words`,
    `CREATE TABLE other (id int)`,
    `UPDATE _prisma_migrations SET checksum = ''`,
    `SET ROLE longhaul`,
  ])('may not %s', async (statement) => {
    await expect(app.query(statement)).rejects.toThrow(/permission denied|must be owner/);
  });

  it('makes partitions, under the rights of the owner, and has none to a new one', async () => {
    const name = (await partitions()).find((name) => /events_2/.test(name))!;
    await owner.query(`DROP TABLE ${name}`);
    // What passes for the audit in its own session does not in there.
    await app.query('CREATE TEMPORARY TABLE audit_events (id int)');
    await app.query('SELECT audit_make_partitions()');
    expect(await partitions()).toContain(name);
    await expect(app.query(`SELECT * FROM ${name}`)).rejects.toThrow('permission denied');
    await expect(owner.query(`DELETE FROM ${name}`)).rejects.toThrow('append-only');
  });
});
