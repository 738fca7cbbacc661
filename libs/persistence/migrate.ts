import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readFile, readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { MigrationList } from '@prisma/schema-engine-wasm/schema_engine_bg';
import pg from 'pg';

/** Of our advisory lock; any number that nobody else uses in this database. */
const LOCK_ID = 5_641_720_113;
const LOCK_TIMEOUT_MS = 120_000;

/**
 * Brings the database to the state of `prisma/migrations` and returns the names of the migrations that were missing.
 * Several callers at once take turns; a waiting one gives up after two minutes. Throws when an applied migration failed,
 * differs from its file or has none: such a database belongs to another version.
 */
export async function applyMigrations(
  databaseUrl: string,
  directory = migrationsDirectory(),
): Promise<string[]> {
  const migrationsList = await readMigrations(directory);
  const client = new pg.Client({ connectionString: databaseUrl, connectionTimeoutMillis: 10_000 });
  client.on('error', () => undefined);
  await client.connect();
  try {
    // The engine takes most of a second to load, so the usual case, nothing to do, is found without it.
    if (await isCurrent(client, migrationsList)) return [];
    await client.query(`SET lock_timeout = ${LOCK_TIMEOUT_MS}`);
    await client.query('SELECT pg_advisory_lock($1)', [LOCK_ID]);
    if (await isCurrent(client, migrationsList)) return [];
    const { withSchemaEngine } = await import('./schema-engine.js');
    const filters = { externalTables: [], externalEnums: [] };
    const applied = await withSchemaEngine(databaseUrl, (engine) =>
      engine.applyMigrations({ migrationsList, filters }),
    );
    return applied.appliedMigrationNames;
  } finally {
    await client.end();
  }
}

/** `prisma/migrations` of the package that this file belongs to, be it run from the sources or from dist/. */
export function migrationsDirectory(): string {
  let root = import.meta.dirname;
  while (!existsSync(join(root, 'package.json'))) {
    if (root === dirname(root)) throw new Error('The folder prisma/migrations is missing.');
    root = dirname(root);
  }
  return join(root, 'prisma', 'migrations');
}

/** The migrations of a `prisma/migrations` folder, oldest first, in the engine's form. */
async function readMigrations(directory: string): Promise<MigrationList> {
  const entries = await readdir(directory, { withFileTypes: true });
  const names = entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  const lockfile = 'migration_lock.toml';
  return {
    baseDir: directory,
    lockfile: { path: lockfile, content: await readFile(join(directory, lockfile), 'utf8') },
    shadowDbInitScript: '',
    migrationDirectories: await Promise.all(
      names.sort().map(async (path) => {
        const value = await readFile(join(directory, path, 'migration.sql'), 'utf8');
        return { path, migrationFile: { path: 'migration.sql', content: { tag: 'ok' as const, value } } };
      }),
    ),
  };
}

async function isCurrent(client: pg.Client, { migrationDirectories }: MigrationList): Promise<boolean> {
  const wanted = new Map<string, string>();
  for (const { path, migrationFile } of migrationDirectories) {
    if (migrationFile.content.tag === 'ok') wanted.set(path, checksum(migrationFile.content.value));
  }
  const applied = await appliedMigrations(client);
  for (const { name, checksum } of applied) {
    if (!wanted.has(name))
      throw new Error(`The database is of another version: it has the migration ${name}, unknown here.`);
    if (wanted.get(name) !== checksum)
      throw new Error(`The migration ${name} was changed after this database got it.`);
  }
  return applied.length === wanted.size;
}

async function appliedMigrations(client: pg.Client): Promise<{ name: string; checksum: string }[]> {
  const { rows } = await client.query<{ exists: boolean }>(
    `SELECT to_regclass('_prisma_migrations') IS NOT NULL AS exists`,
  );
  if (!rows[0]?.exists) return [];
  const migrations = await client.query<{ name: string; checksum: string }>(
    `SELECT migration_name AS name, checksum FROM _prisma_migrations
     WHERE finished_at IS NOT NULL AND rolled_back_at IS NULL`,
  );
  return migrations.rows;
}

function checksum(sql: string): string {
  return createHash('sha256').update(sql).digest('hex');
}
