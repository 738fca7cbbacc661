import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { freePort, startEmbeddedPostgres, startTimeOf } from '@longhaul/persistence/embedded';
import { eventually } from './eventually.js';
import { startRedis } from './redis.mjs';
import { startSwift, type Swift } from './swift.js';

/** How a server ends: in order, or at once as after a crash. Only PostgreSQL knows the difference. */
export type StopMode = 'fast' | 'immediate';

/** A server of the cluster, which is at the same address each time it is started. */
export interface Server {
  url: string;
  start(): Promise<void>;
  stop(mode?: StopMode): Promise<void>;
}

export async function postgresServer(directory: string): Promise<Server & { pid(): number }> {
  const open = () => startEmbeddedPostgres({ directory, runAsUser: 'nobody' });
  const pid = () => Number(readFileSync(join(directory, 'data/postmaster.pid'), 'utf8').split('\n')[0]);
  let postgres = await open();
  const { url } = postgres;
  return {
    url,
    pid,
    async start() {
      postgres = await open();
      if (postgres.url !== url) throw new Error(`PostgreSQL is at port ${postgres.port} now`);
    },
    async stop(mode) {
      if (mode !== 'immediate') return postgres.stop();
      const postmaster = pid();
      process.kill(postmaster, 'SIGQUIT');
      await eventually(() => startTimeOf(postmaster) === undefined);
    },
  };
}

/** It forgets everything when it stops. */
export async function redisServer(directory: string): Promise<Server & { pid(): number }> {
  const port = await freePort();
  let redis = await startRedis(port, directory);
  return {
    url: redis.url,
    pid: () => redis.pid,
    async start() {
      redis = await startRedis(port, directory);
    },
    stop: () => redis.stop(),
  };
}

export async function swiftServer(): Promise<Server & { swift: Swift }> {
  const swift = await startSwift();
  return { url: swift.endpoint, swift, start: swift.up, stop: swift.down };
}
