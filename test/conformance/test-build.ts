import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { TEST_SECRETS_KEYS, makeUser, makeVm, testDatabase } from '../support/database.js';
import { CACHE } from './install.js';
import { startProxy } from '../support/proxy.js';

/** How Longhaul is run while the suite looks at it. */
export interface Shape {
  /** API processes, behind a proxy that takes them in turn. */
  apis: number;
  queue: 'postgres' | 'redis';
  /** Whether the API keeps sessions for clients of 2025-11-25. */
  sessions: boolean;
}

export interface TestBuild {
  url: string;
  stop(): Promise<void>;
}

const TYPESCRIPT = join(import.meta.dirname, '../support/register-typescript.mjs');
/** Longer than any of our processes takes to stop in order. */
const STOP_MS = 15_000;

/**
 * Starts Longhaul with the fixtures beside its own catalogue: real processes, on a database of their own. Needs the servers
 * of test/support/servers.mjs. What it has started is stopped again when it cannot start all.
 */
export async function startTestBuild({ apis, queue, sessions }: Shape): Promise<TestBuild> {
  const stops: (() => unknown)[] = [];
  const stop = async () => {
    for (const one of stops.splice(0).reverse()) await one();
  };
  try {
    const database = await testDatabase();
    stops.push(() => database.drop());
    const { token, caller } = await makeUser(database.db);
    // So that there is a resource to list and read. No worker serves its host.
    await makeVm(database.db, caller, { host: 'nowhere' });

    const start = async (app: string, env: NodeJS.ProcessEnv) => {
      const child = fork(app, {
        DATABASE_URL: database.url,
        SECRETS_KEYS: TEST_SECRETS_KEYS,
        QUEUE_URL: queue === 'redis' ? process.env.TEST_REDIS_URL : database.url,
        ...env,
      });
      stops.push(() => end(child));
      return ready(app, child);
    };
    await start('worker', { LONGHAUL_HOME: join(CACHE, 'home') });
    const started = Array.from({ length: apis }, () =>
      start('api', { PORT: '0', MCP_SESSIONS: String(sessions) }),
    );
    const ports = (await Promise.all(started)).map(({ port }) => port);
    const proxy = await startProxy(ports, token);
    stops.push(() => proxy.close());
    return { url: `http://127.0.0.1:${proxy.port}/mcp/x/all`, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

const fork = (app: string, env: NodeJS.ProcessEnv) =>
  spawn(process.execPath, ['--import', TYPESCRIPT, join(import.meta.dirname, `${app}.ts`)], {
    env: { PATH: process.env.PATH, LOG_LEVEL: process.env.TEST_LOG_LEVEL ?? 'error', ...env },
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });

async function ready(app: string, child: ChildProcess): Promise<{ port: number }> {
  const died = once(child, 'exit').then(([code]) => {
    throw new Error(`The ${app} of the test build ended with ${code} before it was ready.`);
  });
  const [message] = (await Promise.race([once(child, 'message'), died])) as [{ port: number }];
  return message;
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  const kill = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
  await ended.finally(() => clearTimeout(kill));
}
