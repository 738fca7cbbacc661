import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { startEmbeddedPostgres, startTimeOf, type EmbeddedPostgres } from './index.js';

const BUILT = join(import.meta.dirname, '../../../dist/libs/persistence/embedded/index.js');
const RUN_AS_USER = 'nobody';
let directory: string;
let server: EmbeddedPostgres | undefined;

beforeEach(() => {
  directory = join(mkdtempSync(join(tmpdir(), 'longhaul-postgres-')), 'postgres');
  chmodSync(join(directory, '..'), 0o755);
});

afterEach(async () => {
  await server?.stop();
  server = undefined;
  rmSync(join(directory, '..'), { recursive: true, force: true });
});

async function start(): Promise<EmbeddedPostgres> {
  server = await startEmbeddedPostgres({ directory, runAsUser: RUN_AS_USER });
  return server;
}

async function query(url: string, sql: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
}

function postmasterPid(): number {
  return Number(readFileSync(join(directory, 'data/postmaster.pid'), 'utf8').split('\n')[0]);
}

describe('startEmbeddedPostgres', () => {
  it('makes a database, keeps its data and port over a stop, and listens on the loopback only', async () => {
    const first = await start();
    expect(first.adopted).toBe(false);
    await query(first.url, 'CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)');
    expect(await query(first.url, 'SHOW listen_addresses')).toEqual([{ listen_addresses: '127.0.0.1' }]);
    expect(await query(first.url, 'SHOW fsync')).toEqual([{ fsync: 'on' }]);
    expect(statSync(join(directory, 'password')).mode & 0o777).toBe(0o600);
    const pid = postmasterPid();
    await first.stop();
    expect(startTimeOf(pid)).toBeUndefined();

    const second = await start();
    expect(second).toMatchObject({ adopted: false, port: first.port, url: first.url });
    expect(await query(second.url, 'SELECT n FROM kept')).toEqual([{ n: 7 }]);
  });

  it('refuses a wrong password', async () => {
    const { url } = await start();
    await expect(query(url.replace(/:[^:@]+@/, ':wrong@'), 'SELECT 1')).rejects.toMatchObject({
      code: '28P01',
    });
  });

  it('adopts the server that a killed process left, also a stopped one', async () => {
    const script = `
      const { startEmbeddedPostgres } = await import(process.argv[1]);
      const { url } = await startEmbeddedPostgres({ directory: process.argv[2], runAsUser: process.argv[3] });
      process.send(url);
      process.on('message', () => undefined);`;
    const parent = spawn(
      process.execPath,
      ['--input-type=module', '-e', script, BUILT, directory, RUN_AS_USER],
      { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] },
    );
    const [url] = (await once(parent, 'message')) as [string];
    parent.kill('SIGKILL');
    await once(parent, 'exit');
    const pid = postmasterPid();
    process.kill(pid, 'SIGSTOP');

    const adopted = await start();
    expect(adopted).toMatchObject({ adopted: true, url });
    expect(postmasterPid()).toBe(pid);
    await adopted.stop();
    expect(startTimeOf(pid)).toBeUndefined();
  });

  it('recovers when the server itself was killed, and is not misled by its pid file', async () => {
    const { url } = await start();
    await query(url, 'CREATE TABLE kept (n int)');
    process.kill(postmasterPid(), 'SIGKILL');
    const pidFile = join(directory, 'data/postmaster.pid');
    const lines = readFileSync(pidFile, 'utf8').split('\n').slice(1);
    // As if the number had been given to another process since.
    writeFileSync(pidFile, [process.pid, ...lines].join('\n'));

    const again = await start();
    expect(again.adopted).toBe(false);
    expect(await query(again.url, 'SELECT * FROM kept')).toEqual([]);
  });

  it('takes another port when the last one is taken', async () => {
    const first = await start();
    await first.stop();
    const occupant = createServer().listen(first.port, '127.0.0.1');
    await once(occupant, 'listening');
    const second = await start();
    expect(second.port).not.toBe(first.port);
    expect(await query(second.url, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
    occupant.close();
  });

  it('says what is wrong when the server cannot start', async () => {
    const first = await start();
    await first.stop();
    writeFileSync(join(directory, 'data/postgresql.auto.conf'), 'no_such_setting = 1\n');
    server = undefined;
    await expect(start()).rejects.toThrow(/does not start[^]*no_such_setting/);
    expect(existsSync(join(directory, 'data'))).toBe(true);
  }, 30_000);
});
