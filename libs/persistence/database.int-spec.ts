import { connect, createServer, type AddressInfo } from 'node:net';
import { once } from 'node:events';
import { makeUser, makeVm, testDatabase, type TestDatabase } from '../../test/support/database.js';
import { eventually } from '../../test/support/eventually.js';
import { Relay } from '../../test/support/relay.js';
import { Database, Prisma, StateChanges, VM_COLUMNS, newId } from './index.js';

let test: TestDatabase;
beforeAll(async () => (test = await testDatabase()));
afterAll(() => test.drop());

/**
 * A way to the server that keeps back what follows the first "ready for query" of the next connection, itself included, until
 * `pass` sends all of it at once.
 */
async function holdingBack(target: number) {
  let held: Buffer | undefined;
  let pass = () => {};
  const server = createServer((near) => {
    const far = connect({ port: target, host: '127.0.0.1' });
    near.pipe(far);
    near.on('error', () => far.destroy());
    far.on('error', () => near.destroy());
    far.on('data', (data) => {
      const ready = held === undefined ? data.indexOf('Z\0\0\0\x05') : 0;
      if (ready < 0) return void near.write(data);
      if (ready > 0) near.write(data.subarray(0, ready));
      held = Buffer.concat([held ?? Buffer.alloc(0), data.subarray(ready)]);
    });
    pass = () => void near.end(held!);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return { port, server, size: () => held?.length ?? 0, pass: () => pass() };
}

it('lives on when a connection is ended in the moment in which it becomes ready', async () => {
  const url = new URL(test.url);
  const way = await holdingBack(Number(url.port));
  url.port = String(way.port);
  url.searchParams.set('application_name', 'held back');
  const db = new Database({ DATABASE_URL: url.href, DATABASE_POOL: 1 });
  const transaction = db.$transaction(async () => undefined);
  const refused = expect(transaction).rejects.toThrow();
  await eventually(() => way.size() > 0);
  const before = way.size();
  await test.db.$executeRaw`
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'held back'`;
  await eventually(() => way.size() > before);
  way.pass();
  await refused;
  await db.onApplicationShutdown();
  way.server.close();
});

describe('a transaction of SQL', () => {
  const add = Prisma.sql`INSERT INTO hosts (name) VALUES ('new')`;

  it('is committed as a whole, or not at all', async () => {
    const refused = test.db.rawTransaction(async (tx) => {
      expect(await tx.$executeRaw(add)).toBe(1);
      throw new Error('no');
    });
    await expect(refused).rejects.toThrow('no');
    const failed = test.db.rawTransaction(async (tx) => {
      await tx.$executeRaw(add);
      await tx.$executeRaw(add);
    });
    await expect(failed).rejects.toMatchObject({ code: '23505' });
    expect(await test.db.host.count()).toBe(0);
    const added = await test.db.rawTransaction(async (tx) => {
      await tx.$executeRaw(add);
      return tx.$queryRaw`SELECT name FROM hosts WHERE name = ${'new'}`;
    });
    expect(added).toEqual([{ name: 'new' }]);
  });

  it('reads rows as Prisma does', async () => {
    const { caller } = await makeUser(test.db);
    const { id } = await makeVm(test.db, caller, { connection: { a: [1, 'ü'] }, observedAt: new Date() });
    const statement = Prisma.sql`SELECT ${VM_COLUMNS} FROM vms WHERE id = ${id}::uuid`;
    const wanted = [await test.db.vm.findUniqueOrThrow({ where: { id } })];
    expect(await test.db.rawTransaction(async (tx) => tx.$queryRaw(statement))).toEqual(wanted);
  });
});

describe('connections that were cut off without a word', () => {
  let relay: Relay;
  let db: Database;
  beforeEach(async () => {
    const url = new URL(test.url);
    relay = await Relay.open(Number(url.port));
    url.port = String(relay.port);
    db = new Database({ DATABASE_URL: url.href, DATABASE_POOL: 2, DATABASE_TIMEOUT_SECONDS: 1 });
  });
  afterEach(async () => {
    relay.close();
    await db.onApplicationShutdown();
  });

  it('are given up, in a transaction too, and new ones made', async () => {
    await db.$executeRaw`SELECT 1`;
    relay.abandon();
    await expect(db.$executeRaw`SELECT 1`).rejects.toThrow();
    const broken = db.$transaction(async (tx) => {
      await tx.$executeRaw`SELECT 1`;
      relay.abandon();
      await tx.$executeRaw`SELECT 1`;
    });
    await expect(broken).rejects.toThrow();
    expect(await db.$transaction((tx) => tx.$executeRaw`SELECT 1`)).toBe(1);
    const raw = db.rawTransaction(async (tx) => {
      relay.abandon();
      await tx.$executeRaw`SELECT 1`;
    });
    await expect(raw).rejects.toMatchObject({ code: 'ETIMEDOUT' });
    expect(await db.rawTransaction(async (tx) => tx.$executeRaw`SELECT 1`)).toBe(1);
  });

  it('keep a statement that takes its time no longer than that, and nobody who waits between two', async () => {
    await expect(db.$executeRaw`SELECT pg_sleep(60)`).rejects.toThrow();
    const patient = db.$transaction(async (tx) => {
      await tx.$executeRaw`SELECT 1`;
      await test.db.$executeRaw`SELECT pg_sleep(2)`;
      return tx.$executeRaw`SELECT 1`;
    });
    expect(await patient).toBe(1);
  });

  it('do not keep news from who listens', async () => {
    const changes = new StateChanges(db);
    await changes.onModuleInit();
    const id = newId();
    let heard = 0;
    changes.on(id, () => heard++);
    relay.abandon();
    await eventually(async () => {
      await test.db.$executeRaw`SELECT pg_notify('longhaul_changes', ${id})`;
      // The first of them may be that everybody looks again.
      return heard > 1;
    });
    await changes.onApplicationShutdown();
  });
});
