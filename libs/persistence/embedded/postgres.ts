import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { NAME, prepareCluster, type Cluster } from './cluster.js';
import { freePort } from './port.js';
import { commandLineOf, startTimeOf } from './process.js';

const START_TIMEOUT_MS = 120_000; // recovery after a power cut may have a gigabyte of log to replay
const MAX_STARTS = 15; // of a server that ends at once, 200 ms apart
const STOP_TIMEOUT_MS = 20_000;
const MAX_LOG_BYTES = 10 * 1024 * 1024;

const SETTINGS = {
  listen_addresses: '127.0.0.1',
  unix_socket_directories: '',
  max_connections: '200',
  shared_buffers: '128MB',
  wal_level: 'minimal',
  max_wal_senders: '0',
  jit: 'off',
  log_checkpoints: 'off',
  // Statements and the rows that they are about may hold what must not get into a log file.
  log_min_error_statement: 'panic',
  log_error_verbosity: 'terse',
};

export interface EmbeddedPostgresOptions {
  /** Holds binaries, data, password, port and log; made when missing. `runAsUser` must be able to enter its parents. */
  directory: string;
  /** System user that PostgreSQL runs as. Needed as root, which PostgreSQL refuses; ignored for everybody else. */
  runAsUser?: string;
  /** Called before each step that may take over a second. */
  onProgress?: (message: string) => void;
}

export interface EmbeddedPostgres {
  /** Connection string of the database, password included. */
  url: string;
  port: number;
  /** Whether the server was running already, left by an earlier process. */
  adopted: boolean;
  /** Disconnects everybody, stops the server, waits for its end; after 20 s the hard way, from which PostgreSQL recovers. */
  stop(): Promise<void>;
}

/**
 * Starts the PostgreSQL of the npm package on `directory`, or adopts the one that runs there already: the server outlives
 * this process unless `stop` is called. Listens on 127.0.0.1 only, at the port of last time or, where that is taken, at a
 * free one. Throws when it is not ready within two minutes; the message holds the end of the server's log.
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions): Promise<EmbeddedPostgres> {
  const { directory, runAsUser, onProgress = () => undefined } = options;
  const cluster = await prepareCluster(directory, runAsUser, onProgress);
  const deadline = performance.now() + START_TIMEOUT_MS;
  for (let starts = 0; starts < MAX_STARTS && performance.now() < deadline; starts++) {
    const running = findPostmaster(cluster);
    const server = running ?? (await launch(cluster, onProgress));
    if (await becomesReady(cluster, server, deadline, onProgress)) {
      const url = urlOf(cluster, server.port, NAME);
      return { url, port: server.port, adopted: running !== undefined, stop: () => stop(server.pid) };
    }
    // It ended: its port was taken meanwhile, or it was shutting down, or not all processes of the last one are gone yet.
    await delay(200);
  }
  throw new Error(
    `PostgreSQL in ${cluster.directory} does not start. The end of its log:\n${endOfLog(cluster)}`,
  );
}

interface Postmaster {
  pid: number;
  port: number;
}

/** The server that runs on this data directory, if one does. A pid file without one is removed. */
function findPostmaster({ data }: Cluster): Postmaster | undefined {
  const file = join(data, 'postmaster.pid');
  if (!existsSync(file)) return undefined;
  const [pid = 0, , , port = 0] = readFileSync(file, 'utf8').split('\n').map(Number);
  const command = startTimeOf(pid) && commandLineOf(pid);
  if (command && /\bpostgres /.test(command) && command.includes(` -D ${data} `)) {
    // Somebody may have stopped it, and then it would never answer.
    process.kill(pid, 'SIGCONT');
    return { pid, port };
  }
  // The pid may be a stranger's by now, and PostgreSQL would refuse to start because of it.
  rmSync(file, { force: true });
  return undefined;
}

async function launch(cluster: Cluster, onProgress: (message: string) => void): Promise<Postmaster> {
  const portFile = join(cluster.directory, 'port');
  const last = existsSync(portFile) ? Number(readFileSync(portFile, 'utf8')) : 0;
  const port = await freePort(last);
  if (last && port !== last) onProgress(`Port ${last} is taken: PostgreSQL uses ${port}`);
  writeFileSync(portFile, `${port}\n`);

  const logFile = logOf(cluster);
  if (existsSync(logFile) && statSync(logFile).size > MAX_LOG_BYTES) renameSync(logFile, `${logFile}.1`);
  const log = openSync(logFile, 'a', 0o600);
  try {
    const settings = Object.entries(SETTINGS).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
    const child = spawn(
      join(cluster.binaries, 'bin/postgres'),
      ['-D', cluster.data, '-p', String(port), ...settings],
      { ...cluster.spawnOptions, detached: true, stdio: ['ignore', log, log] },
    );
    child.unref();
    await once(child, 'spawn');
    return { pid: child.pid ?? 0, port };
  } finally {
    closeSync(log);
  }
}

/** True once our role can connect and our database exists; false when the server ended instead or the time is over. */
async function becomesReady(
  cluster: Cluster,
  { pid, port }: Postmaster,
  deadline: number,
  onProgress: (message: string) => void,
): Promise<boolean> {
  const startTime = startTimeOf(pid);
  const slow = setTimeout(onProgress, 1_000, 'Waiting for PostgreSQL to come up');
  try {
    while (startTime && startTimeOf(pid) === startTime && performance.now() < deadline) {
      if (await answers(cluster, port)) return true;
      await delay(20);
    }
    return false;
  } finally {
    clearTimeout(slow);
  }
}

async function answers(cluster: Cluster, port: number): Promise<boolean> {
  const client = new pg.Client({
    connectionString: urlOf(cluster, port, 'postgres'),
    connectionTimeoutMillis: 5_000,
    query_timeout: 10_000,
  });
  client.on('error', () => undefined);
  try {
    await client.connect();
    const { rows } = await client.query<{ data: string; exists: boolean }>(
      `SELECT current_setting('data_directory') AS data, EXISTS (SELECT FROM pg_database WHERE datname = $1)`,
      [NAME],
    );
    if (rows[0]?.data !== cluster.data) return false;
    if (!rows[0].exists) await client.query(`CREATE DATABASE ${NAME}`);
    return true;
  } catch {
    return false;
  } finally {
    await client.end().catch(() => undefined);
  }
}

async function stop(pid: number): Promise<void> {
  const startTime = startTimeOf(pid);
  const lives = () => startTime !== undefined && startTimeOf(pid) === startTime;
  for (const [signal, waitMs] of [
    ['SIGINT', STOP_TIMEOUT_MS],
    ['SIGQUIT', 5_000],
    ['SIGKILL', 5_000],
  ] as const) {
    if (!lives()) return;
    process.kill(pid, signal);
    const deadline = performance.now() + waitMs;
    while (lives() && performance.now() < deadline) await delay(10);
  }
  if (lives()) throw new Error(`PostgreSQL (process ${pid}) cannot be stopped.`);
}

function urlOf({ password }: Cluster, port: number, database: string): string {
  return `postgresql://${NAME}:${password}@127.0.0.1:${port}/${database}`;
}

function logOf({ directory }: Cluster): string {
  return join(directory, 'postgres.log');
}

function endOfLog(cluster: Cluster): string {
  return existsSync(logOf(cluster)) ? readFileSync(logOf(cluster), 'utf8').slice(-2_000) : '(empty)';
}
