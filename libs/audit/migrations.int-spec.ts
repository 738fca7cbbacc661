import { chmodSync, cpSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Database, applyMigrations, newId, startEmbeddedPostgres } from '@longhaul/persistence';
import { eventually } from '../../test/support/eventually.js';
import { migrationsDirectory } from '../persistence/migrate.js';
import { Audit } from './audit.js';
import { sealEvents } from './seal.js';
import { verifyAudit, type Finding } from './verify.js';

// On a server of its own: the role longhaul_app is the server's, not one database's.

const DAY_MS = 86_400_000;
const OWNER = 'plain_owner';

let directory: string;
let server: Awaited<ReturnType<typeof startEmbeddedPostgres>>;
let admin: Database;
const opened: Database[] = [];

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'longhaul-audit-'));
  chmodSync(directory, 0o755);
  server = await startEmbeddedPostgres({ directory: join(directory, 'postgres'), runAsUser: 'nobody' });
  admin = open(server.url);
  await admin.$executeRawUnsafe(`CREATE ROLE ${OWNER} LOGIN PASSWORD 'plain' NOCREATEROLE`);
}, 60_000);
afterAll(async () => {
  await Promise.all(opened.map((db) => db.onApplicationShutdown()));
  await server?.stop();
  rmSync(directory, { recursive: true, force: true });
});

function open(url: string): Database {
  const db = new Database({ DATABASE_URL: url, DATABASE_POOL: 4 });
  opened.push(db);
  return db;
}

/** The address of a new database, for its owner. */
async function create(owner?: string): Promise<string> {
  const name = `test_${newId().slice(0, 8)}`;
  await admin.$executeRawUnsafe(`CREATE DATABASE ${name} ${owner ? `OWNER ${owner}` : ''}`);
  const url = new URL(server.url);
  url.pathname = `/${name}`;
  if (owner) Object.assign(url, { username: owner, password: 'plain' });
  return url.href;
}

/** Seals all there is and looks whether it is as it was. */
async function sealed(db: Database): Promise<{ events: number; findings: Finding[] }> {
  return eventually(async () => {
    await sealEvents(db, () => undefined);
    const findings: Finding[] = [];
    const { unsealed, events } = await verifyAudit(db, {}, (finding) => findings.push(finding));
    return unsealed === 0 && { events, findings };
  });
}

const roleExists = async () =>
  (await admin.$queryRaw<unknown[]>`SELECT FROM pg_roles WHERE rolname = 'longhaul_app'`).length > 0;

it('an owner that may make no roles gets all but longhaul_app, whose audit is append-only too', async () => {
  const url = await create(OWNER);
  expect(await applyMigrations(url)).toContain('20261121080717_audit');
  expect(await roleExists()).toBe(false);
  const db = open(url);
  const userId = newId();
  await new Audit(db).record({ event: 'call', tool: 'whoami', userId });
  expect((await new Audit(db).search({ userId })).events).toMatchObject([{ tool: 'whoami' }]);
  expect(await sealed(db)).toEqual({ events: 1, findings: [] });
  await expect(db.$executeRaw`UPDATE audit_events SET tool = 'other'`).rejects.toThrow(/append/i);
  await expect(db.$executeRaw`DELETE FROM audit_events`).rejects.toThrow(/append/i);
});

it('such an owner makes use of a longhaul_app that was made before', async () => {
  await admin.$executeRawUnsafe('CREATE ROLE longhaul_app NOLOGIN');
  const url = await create(OWNER);
  await applyMigrations(url);
  await admin.$executeRawUnsafe(`CREATE ROLE plain_app LOGIN PASSWORD 'plain' IN ROLE longhaul_app`);
  const app = open(Object.assign(new URL(url), { username: 'plain_app' }).href);
  const userId = newId();
  await new Audit(app).record({ event: 'call', tool: 'whoami', userId });
  expect((await new Audit(app).search({ userId })).events).toMatchObject([{ tool: 'whoami' }]);
  await expect(app.$executeRaw`UPDATE audit_events SET tool = 'other'`).rejects.toThrow(/permission denied/);
  await expect(app.$executeRaw`DELETE FROM audit_events`).rejects.toThrow(/permission denied/);
});

it('events of the earlier schema move along: they are found, sealed and as they were', async () => {
  const url = await create();
  const earlier = join(directory, 'migrations');
  cpSync(migrationsDirectory(), earlier, { recursive: true });
  for (const name of readdirSync(earlier))
    if (/^\d/.test(name) && name >= '20261121080717_audit') rmSync(join(earlier, name), { recursive: true });
  await applyMigrations(url, earlier);

  const db = open(url);
  const [userId, projectId] = [newId(), newId()];
  await db.$executeRaw`INSERT INTO projects (id, name, customer) VALUES (${projectId}::uuid, 'old', 'C-1')`;
  const times = [400, 70, 1, 0].map((days) => new Date(Date.now() - days * DAY_MS));
  for (const [n, at] of times.entries())
    await db.$executeRaw`
      INSERT INTO audit_events (at, event, user_id, project_id, tool, arguments, result, ip)
      VALUES (${at}, 'call', ${userId}::uuid, ${projectId}::uuid, ${`tool_${n}`}, '{"command": "restart nginx"}', 'ok', '::1')`;
  await applyMigrations(url);

  const audit = new Audit(db);
  await audit.record({ event: 'call', userId, projectId, tool: 'tool_4', result: 'ok' });
  const { events } = await audit.search({ userId });
  expect(events.map(({ tool }) => tool)).toEqual(['tool_4', 'tool_3', 'tool_2', 'tool_1', 'tool_0']);
  expect(events.map(({ customer }) => customer)).toEqual(events.map(() => 'C-1'));
  expect(events.slice(1).map(({ at }) => at)).toEqual(times.reverse());
  const [newest, last] = events;
  expect(newest!.id).toBeGreaterThan(last!.id);
  const { events: of } = await audit.search({ customer: 'C-1', from: times[1], to: times[0] });
  expect(of.map(({ tool }) => tool)).toEqual(['tool_2']);

  expect(await sealed(db)).toEqual({ events: 5, findings: [] });
  const window = { from: new Date(Date.now() - 2 * DAY_MS), to: new Date(Date.now() + DAY_MS) };
  const byWords = await audit.search({ userId, ...window, text: 'nginx' });
  expect(byWords.events.map(({ tool }) => tool)).toEqual(['tool_3', 'tool_2']);
});
