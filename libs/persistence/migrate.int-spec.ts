import { chmodSync, cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { startEmbeddedPostgres, type EmbeddedPostgres } from './embedded/index.js';
import { applyMigrations, migrationsDirectory } from './migrate.js';

let directory: string;
let migrations: string;
let server: EmbeddedPostgres;
let url: string;
let databases = 0;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'longhaul-migrate-'));
  chmodSync(directory, 0o755);
  server = await startEmbeddedPostgres({ directory: join(directory, 'postgres'), runAsUser: 'nobody' });
}, 30_000);

afterAll(async () => {
  await server?.stop();
  rmSync(directory, { recursive: true, force: true });
});

beforeEach(async () => {
  const name = `test_${++databases}`;
  await query(server.url, `CREATE DATABASE ${name}`);
  url = server.url.replace(/[^/]+$/, name);
  migrations = join(directory, name);
  mkdirSync(migrations);
  writeFileSync(join(migrations, 'migration_lock.toml'), 'provider = "postgresql"\n');
  writeMigration('20260101000000_first', 'CREATE TABLE "first" (id int PRIMARY KEY);\n');
});

function writeMigration(name: string, sql: string): void {
  mkdirSync(join(migrations, name), { recursive: true });
  writeFileSync(join(migrations, name, 'migration.sql'), sql);
}

async function query(connectionString: string, sql: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString });
  await client.connect();
  try {
    return (await client.query(sql)).rows as Record<string, unknown>[];
  } finally {
    await client.end();
  }
}

describe('applyMigrations', () => {
  it('applies what is missing, in order, and then nothing', async () => {
    writeMigration(
      '20260102000000_second',
      'ALTER TABLE "first" ADD COLUMN more text;\nCREATE INDEX more ON "first" (more);\n',
    );
    expect(await applyMigrations(url, migrations)).toEqual(['20260101000000_first', '20260102000000_second']);
    expect(await query(url, 'SELECT more FROM "first"')).toEqual([]);

    const before = performance.now();
    expect(await applyMigrations(url, migrations)).toEqual([]);
    expect(performance.now() - before).toBeLessThan(200);

    writeMigration('20260103000000_third', 'CREATE TABLE third (id int);\n');
    expect(await applyMigrations(url, migrations)).toEqual(['20260103000000_third']);
  });

  it('lets only one of several starters at once do the work', async () => {
    const results = await Promise.all([1, 2, 3, 4].map(() => applyMigrations(url, migrations)));
    expect(results.flat()).toEqual(['20260101000000_first']);
    expect(await query(url, 'SELECT count(*)::int AS n FROM _prisma_migrations')).toEqual([{ n: 1 }]);
  });

  it('leaves nothing of a migration that fails, and says so again', async () => {
    writeMigration('20260102000000_broken', 'CREATE TABLE half (id int);\nSELECT no_such_column;\n');
    await expect(applyMigrations(url, migrations)).rejects.toThrow(/no_such_column[^]*20260102000000_broken/);
    expect(await query(url, `SELECT to_regclass('half') AS half`)).toEqual([{ half: null }]);
    await expect(applyMigrations(url, migrations)).rejects.toThrow(/20260102000000_broken/);
  });

  it('refuses a database of another version', async () => {
    await applyMigrations(url, migrations);
    writeMigration('20260101000000_first', 'CREATE TABLE "first" (id bigint PRIMARY KEY);\n');
    await expect(applyMigrations(url, migrations)).rejects.toThrow('was changed after this database got it');
    cpSync(join(migrations, '20260101000000_first'), join(migrations, '20260101000000_renamed'), {
      recursive: true,
    });
    rmSync(join(migrations, '20260101000000_first'), { recursive: true });
    await expect(applyMigrations(url, migrations)).rejects.toThrow('unknown here');
  });

  it('applies the migrations of this repository', async () => {
    expect(await applyMigrations(url)).not.toEqual([]);
    expect(migrationsDirectory()).toMatch(/prisma.migrations$/);
  });
});
