import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Caller } from '@longhaul/access';
import { applyMigrations, type Vm } from '@longhaul/persistence';
import { Redis } from 'ioredis';
import { Stack } from '../e2e/stack.js';
import {
  postgresServer,
  redisServer,
  swiftServer,
  type PostgresServer,
  type Server,
  type StopMode,
} from './cluster-servers.js';
import { makeVm, openDatabase } from './database.js';
import { startNamespaceAgent, type NamespaceAgent, type NamespaceAgentOptions } from './namespace-agent.js';
import { portToKeep } from './ports.js';
import { startProxy } from './proxy.js';
import { Relay, type Break } from './relay.js';
import { SWIFT_LACKS, swiftEnv } from './swift.js';

export type ServerName = 'postgres' | 'redis' | 'swift';

export interface ClusterOptions {
  apis?: number;
  workers?: number;
  /** Files are kept there, else in a folder; default: where the machine has it. */
  swift?: boolean;
  /** Whether processes reach servers through relays, which `partition` needs. Without, nothing stands between them. */
  relays?: boolean;
  /** For all processes, before what they are given anyway. */
  env?: NodeJS.ProcessEnv;
}

interface Member {
  app: 'api' | 'worker';
  env: NodeJS.ProcessEnv;
  relays: Partial<Record<ServerName, Relay>>;
  /** Not there while it is down. */
  child?: ChildProcess;
}

/**
 * Production's topology as plain processes: PostgreSQL, Redis, Swift, APIs `api-1`, `api-2`, … behind a proxy that takes them in
 * turn, workers `worker-1`, …; each may be ended, stopped, cut off and brought back, at the same address. What users have
 * is in `stack`: a token, clients, VMs, jobs. Needs `npm run build`. All of it ends with `stop`.
 */
export class Cluster {
  readonly members = new Map<string, Member>();
  readonly servers = new Map<ServerName, Server>();
  stack!: Stack;
  private postgres!: PostgresServer;
  private readonly stops: (() => unknown)[] = [];

  private constructor(private readonly options: ClusterOptions) {}

  /** What has been started is stopped again when not all of it can be. */
  static async start(options: ClusterOptions = {}): Promise<Cluster> {
    const cluster = new Cluster(options);
    try {
      await cluster.open();
      return cluster;
    } catch (error) {
      await cluster.stop();
      throw error;
    }
  }

  private async open(): Promise<void> {
    const { apis = 2, workers = 3, swift = !SWIFT_LACKS } = this.options;
    const directory = mkdtempSync(join(tmpdir(), 'longhaul-cluster-'));
    chmodSync(directory, 0o755);
    this.stops.push(() => rmSync(directory, { recursive: true, force: true }));
    const postgres = await this.add('postgres', postgresServer(join(directory, 'postgres')));
    this.postgres = postgres;
    const redis = await this.add('redis', redisServer(directory));
    const store = swift ? await this.startSwift() : {};
    await applyMigrations(postgres.url);

    this.stack = await Stack.on(await openDatabase(postgres.url), redis.url);
    this.stops.push(() => this.stack.stop());
    const ports = await Promise.all(Array.from({ length: apis }, () => portToKeep()));
    const proxy = await startProxy(ports);
    this.stops.push(() => proxy.close());
    this.stack.url = `http://127.0.0.1:${proxy.port}/mcp`;

    const LOG_LEVEL = process.env.TEST_LOG_LEVEL ?? 'fatal';
    const shared = { ...store, LOG_LEVEL, RATE_VM_CALLS: '0', RATE_SUBMISSIONS: '0', ...this.options.env };
    const publicUrl = new URL(this.stack.url).origin;
    for (const [index, port] of ports.entries())
      await this.join(`api-${index + 1}`, 'api', { ...shared, PORT: String(port), PUBLIC_URL: publicUrl });
    for (let number = 1; number <= workers; number++)
      await this.join(`worker-${number}`, 'worker', { ...shared, WORKER_NAME: `worker-${number}` });
    await Promise.all([...this.members.keys()].map((name) => this.startProcess(name)));
  }

  private async add<T extends Server>(name: ServerName, starting: Promise<T>): Promise<T> {
    const server = await starting;
    this.servers.set(name, server);
    this.stops.push(() => server.stop());
    return server;
  }

  private async startSwift(): Promise<NodeJS.ProcessEnv> {
    const { swift } = await this.add('swift', swiftServer());
    this.stops.push(() => swift.stop());
    return swiftEnv(swift);
  }

  /** Where each server is for this process: at a relay of its own. */
  private async join(name: string, app: Member['app'], env: NodeJS.ProcessEnv): Promise<void> {
    const relays: Member['relays'] = {};
    const urls: Partial<Record<ServerName, string>> = {};
    for (const [server, { url: direct }] of this.servers) {
      const url = new URL(direct);
      if (this.options.relays !== false) {
        const relay = await Relay.open(Number(url.port));
        this.stops.push(() => relay.close());
        relays[server] = relay;
        url.port = String(relay.port);
      }
      urls[server] = url.href;
    }
    const servers = { DATABASE_URL: urls.postgres, QUEUE_URL: urls.redis, S3_ENDPOINT: urls.swift };
    this.members.set(name, { app, env: { ...env, ...servers }, relays });
  }

  /** `api-2` or `worker-1`, say, which must be down; resolves once it is ready. */
  async startProcess(name: string): Promise<void> {
    const member = this.member(name);
    const { process: child } = await this.stack.spawn(member.app, member.env);
    member.child = child;
    child.once('exit', () => {
      if (member.child === child) member.child = undefined;
    });
  }

  /** A signal that does not end it, such as SIGSTOP or SIGCONT. */
  signal(name: string, signal: NodeJS.Signals): void {
    if (!this.member(name).child?.kill(signal)) throw new Error(`${name} is down`);
  }

  /** Resolves once it has ended, with its exit code; null where the signal itself has ended it. */
  async end(name: string, signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    const { child } = this.member(name);
    if (!child) throw new Error(`${name} is down`);
    const ended = once(child, 'exit');
    child.kill(signal);
    return ((await ended) as [number | null])[0];
  }

  async restart(name: string, signal?: NodeJS.Signals): Promise<void> {
    await this.end(name, signal);
    await this.startProcess(name);
  }

  async restartServer(name: ServerName, mode?: StopMode): Promise<void> {
    await this.server(name).stop(mode);
    await this.server(name).start();
  }

  /**
   * Another PostgreSQL takes the place of this one, which is gone without a word: connections of now stay open with nothing
   * passing, new ones lead to it. The test's own, in `stack`, are lost.
   */
  async failOver(): Promise<void> {
    const relays = [...this.members.values()].flatMap(({ relays }) => relays.postgres ?? []);
    for (const relay of relays) relay.break('blackhole');
    await this.postgres.failOver();
    for (const relay of relays) relay.leadTo(Number(new URL(this.postgres.url).port));
  }

  /** FLUSHALL, as somebody with a shell there does. */
  async flushRedis(): Promise<void> {
    const redis = new Redis(this.server('redis').url);
    await redis.flushall().finally(() => redis.disconnect());
  }

  /** Between that process and that server, until it is healed; URLs for uploads that this API gives out are hit, too. */
  partition(process: string, server: ServerName, how: Break): void {
    this.relay(process, server).break(how);
  }

  heal(process: string, server: ServerName): void {
    this.relay(process, server).heal();
  }

  /** A VM (of the stack's user by default) that is a real guest agent in a namespace; `stack.createVm` makes one of QEMU. */
  async addAgentVm(
    options?: NamespaceAgentOptions,
    { caller = this.stack.caller, ...values }: Parameters<typeof makeVm>[2] & { caller?: Caller } = {},
  ): Promise<{ vm: Vm; agent: NamespaceAgent }> {
    const agent = await startNamespaceAgent(options);
    this.stops.push(() => agent.stop());
    const connection = { agent: agent.socketPath };
    const vm = await makeVm(this.stack.database.db, caller, {
      provider: 'guest-agent',
      connection,
      ...values,
    });
    return { vm, agent };
  }

  /** In order: APIs, workers, clients and VMs, servers. What cannot be stopped keeps nothing else from it. */
  async stop(): Promise<void> {
    const errors: unknown[] = [];
    for (const stop of [() => this.endAll(), ...this.stops.splice(0).reverse()])
      await Promise.resolve()
        .then(stop)
        .catch((error: unknown) => errors.push(error));
    if (errors.length > 0) throw new AggregateError(errors, 'not all of the cluster could be stopped');
  }

  private async endAll(): Promise<void> {
    for (const app of ['api', 'worker']) {
      const up = [...this.members].filter(([, member]) => member.app === app && member.child);
      // One that is stopped could not end.
      await Promise.all(up.map(([name]) => (this.signal(name, 'SIGCONT'), this.end(name))));
    }
  }

  private member(name: string): Member {
    return found(this.members.get(name), name);
  }

  server(name: ServerName): Server {
    return found(this.servers.get(name), name);
  }

  relay(process: string, server: ServerName): Relay {
    return found(this.member(process).relays[server], `relay from ${process} to ${server}`);
  }
}

function found<T>(thing: T | undefined, name: string): T {
  if (!thing) throw new Error(`This cluster has no ${name}.`);
  return thing;
}
