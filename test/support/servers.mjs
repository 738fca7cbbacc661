// Jest's global set-up of the integration and end-to-end tests: a PostgreSQL with a migrated template database and a
// Redis of their own, both on free ports of the loopback. Needs `npm run build`, as Jest does not transform this file.
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { freePort, startEmbeddedPostgres } from '../../dist/libs/persistence/embedded/index.js';
import { applyMigrations } from '../../dist/libs/persistence/migrate.js';
import { startRedis } from './redis.mjs';

const TEMPLATE = 'longhaul_template';

export default async function setup() {
  const directory = mkdtempSync(join(tmpdir(), 'longhaul-test-'));
  chmodSync(directory, 0o755);
  const stops = [() => rmSync(directory, { recursive: true, force: true })];
  globalThis.stopTestServers = async () => {
    while (stops.length > 0) await stops.pop()();
  };
  try {
    await start(directory, stops);
  } catch (error) {
    await globalThis.stopTestServers();
    throw error;
  }
}

async function start(directory, stops) {
  const postgres = await startEmbeddedPostgres({
    directory: join(directory, 'postgres'),
    runAsUser: 'nobody',
  });
  stops.push(() => postgres.stop());
  const client = new pg.Client({ connectionString: postgres.url });
  await client.connect();
  await client.query(`CREATE DATABASE ${TEMPLATE}`);
  await client.end();
  const template = new URL(postgres.url);
  template.pathname = `/${TEMPLATE}`;
  await applyMigrations(template.href);

  const redis = await startRedis(await freePort(0), directory);
  stops.push(() => redis.stop());

  process.env.TEST_DATABASE_URL = postgres.url;
  process.env.TEST_REDIS_URL = redis.url;
}
