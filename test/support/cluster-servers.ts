import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { startEmbeddedPostgres, startTimeOf } from '@longhaul/persistence/embedded';
import { childrenOf } from './children.js';
import { eventually } from './eventually.js';
import { portToKeep } from './ports.js';
import { startRedis } from './redis.mjs';
import { startSwift, type Swift } from './swift.js';

/**
 * How a server ends: in order, at once as after a crash, or by SIGKILL, from which PostgreSQL's backends have to notice by
 * themselves. Swift knows no difference.
 */
export type StopMode = 'fast' | 'immediate' | 'kill';

/** A server of the cluster, which is at the same address each time it is started. */
export interface Server {
  url: string;
  start(): Promise<void>;
  stop(mode?: StopMode): Promise<void>;
  /** Of the process that others come from. Swift has several. */
  pid?(): number;
}

export interface PostgresServer extends Server {
  /** Crashes, and another one with all that was committed takes its place, at another port. */
  failOver(): Promise<void>;
}

export async function postgresServer(first: string): Promise<PostgresServer> {
  let directory = first;
  mkdirSync(directory);
  const takePort = async () => writeFileSync(join(directory, 'port'), String(await portToKeep()));
  await takePort();
  const open = () => startEmbeddedPostgres({ directory, runAsUser: 'nobody' });
  const pid = () => Number(readFileSync(join(directory, 'data/postmaster.pid'), 'utf8').split('\n')[0]);
  let postgres = await open();
  const server: PostgresServer = {
    url: postgres.url,
    pid,
    async start() {
      postgres = await open();
      if (postgres.url !== server.url) throw new Error(`PostgreSQL is at port ${postgres.port} now`);
    },
    async stop(mode) {
      if (mode === undefined || mode === 'fast') return postgres.stop();
      const all = [pid(), ...childrenOf(pid())];
      process.kill(pid(), mode === 'kill' ? 'SIGKILL' : 'SIGQUIT');
      await eventually(() => all.every((process) => startTimeOf(process) === undefined));
    },
    // The binaries that we have know no replicas: the files themselves go over.
    async failOver() {
      await server.stop('immediate');
      execFileSync('cp', ['-a', directory, `${directory}-next`]);
      directory = `${directory}-next`;
      await takePort();
      postgres = await open();
      server.url = postgres.url;
    },
  };
  return server;
}

/** It forgets everything when it stops. */
export async function redisServer(directory: string): Promise<Server> {
  const port = await portToKeep();
  let redis = await startRedis(port, directory);
  return {
    url: redis.url,
    pid: () => redis.pid,
    async start() {
      redis = await startRedis(port, directory);
    },
    stop: (mode) => redis.stop(mode === 'kill' ? 'SIGKILL' : 'SIGTERM'),
  };
}

export async function swiftServer(): Promise<Server & { swift: Swift }> {
  const swift = await startSwift();
  return { url: swift.endpoint, swift, start: swift.up, stop: swift.down };
}
