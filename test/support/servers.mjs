// Jest's global set-up of the integration and end-to-end tests: a PostgreSQL with a migrated template database and a
// Redis of their own, both on free ports of the loopback. Needs `npm run build`, as Jest does not transform this file.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { freePort, startEmbeddedPostgres } from '../../dist/libs/persistence/embedded/index.js';
import { applyMigrations } from '../../dist/libs/persistence/migrate.js';

const TEMPLATE = 'longhaul_template';

export default async function setup() {
  const directory = mkdtempSync(join(tmpdir(), 'longhaul-test-'));
  chmodSync(directory, 0o755);
  const postgres = await startEmbeddedPostgres({
    directory: join(directory, 'postgres'),
    runAsUser: 'nobody',
  });
  const client = new pg.Client({ connectionString: postgres.url });
  await client.connect();
  await client.query(`CREATE DATABASE ${TEMPLATE}`);
  await client.end();
  const template = new URL(postgres.url);
  template.pathname = `/${TEMPLATE}`;
  await applyMigrations(template.href);

  const redisPort = await freePort(0);
  const args = [
    '--port',
    redisPort,
    '--bind',
    '127.0.0.1',
    '--save',
    '',
    '--appendonly',
    'no',
    '--dir',
    directory,
  ];
  const redis = spawn('redis-server', args.map(String), { stdio: 'ignore' });
  await accepts(redisPort, redis);

  process.env.TEST_DATABASE_URL = postgres.url;
  process.env.TEST_REDIS_URL = `redis://127.0.0.1:${redisPort}`;
  globalThis.stopTestServers = async () => {
    redis.kill();
    await postgres.stop();
    rmSync(directory, { recursive: true, force: true });
  };
}

/** Resolves once somebody listens on the port; fails when the server has ended instead. */
async function accepts(port, server) {
  for (;;) {
    const socket = connect(port, '127.0.0.1');
    const open = await Promise.race([once(socket, 'connect'), once(socket, 'error')]).then(
      () => true,
      () => false,
    );
    socket.destroy();
    if (open) return;
    if (server.exitCode !== null)
      throw new Error('redis-server ended; is the package redis-server installed?');
  }
}
