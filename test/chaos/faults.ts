import { setTimeout as pause } from 'node:timers/promises';
import { childrenOf } from '../support/children.js';
import type { Cluster, ServerName } from '../support/cluster.js';
import { eventually } from '../support/eventually.js';
import { argumentsOf } from '../support/processes.js';
import type { Machine } from './machines.js';
import type { Fault } from './schedule.js';

const BACK_MS = 180_000;

/** One fault as it really was, in milliseconds since the epoch. */
export interface Happened extends Fault {
  from: number;
  /** When all was well again; what it hit may take longer to notice. */
  until: number;
}

/** Breaks parts of a cluster and heals them, one fault at a time at each part, and brings back what has ended by itself. */
export class Faults {
  readonly happened: Happened[] = [];
  /** Processes that ended though nobody had told them to. */
  readonly crashes: string[] = [];
  private readonly turns = new Map<string, Promise<void>>();
  /** Processes that are down because a fault wants them so. */
  private readonly downs = new Set<string>();

  constructor(
    private readonly cluster: Cluster,
    private readonly machines: ReadonlyMap<string, Machine>,
    private readonly say: (text: string) => void,
  ) {}

  /** Each at its time; resolves when the last one is healed. */
  async run(faults: readonly Fault[]): Promise<void> {
    const watching = new AbortController();
    const watch = this.watch(watching.signal);
    const begun = performance.now();
    const turns: Promise<void>[] = [];
    for (const fault of faults) {
      const wait = fault.atMs - (performance.now() - begun);
      await pause(Math.max(wait, 0));
      turns.push(this.inTurn(fault.target, () => this.happen(fault)));
    }
    await Promise.all(turns);
    watching.abort();
    await watch;
  }

  private inTurn(target: string, act: () => Promise<void>): Promise<void> {
    const turn = (this.turns.get(target) ?? Promise.resolve()).then(act);
    this.turns.set(target, turn);
    // Whoever waits for all of them throws it, and then everything is taken down in order.
    turn.catch(() => undefined);
    return turn;
  }

  private async happen(fault: Fault): Promise<void> {
    const happened = { ...fault, from: Date.now(), until: Infinity };
    this.happened.push(happened);
    this.say(`fault ${fault.number}: ${fault.kind}: ${fault.target}, ${(fault.forMs / 1000).toFixed(1)} s`);
    const heal = await this.breakIt(fault);
    if (fault.forMs > 0) await pause(fault.forMs);
    await heal?.();
    happened.until = Date.now();
  }

  private async breakIt({ kind, target }: Fault): Promise<(() => Promise<void> | void) | undefined> {
    const { cluster } = this;
    switch (kind) {
      case 'api killed':
      case 'worker killed':
        return this.down(target, 'SIGKILL');
      case 'api ended':
      case 'worker ended':
        return this.down(target, 'SIGTERM');
      case 'api stopped':
      case 'worker stopped':
      case 'worker stopped for long':
        cluster.signal(target, 'SIGSTOP');
        return () => cluster.signal(target, 'SIGCONT');
      case 'redis killed':
      case 'postgres killed':
        return this.serverDown(target, 'kill');
      case 'postgres restarted':
        return this.serverDown(target, 'fast');
      case 'postgres crashed':
        return this.serverDown(target, 'immediate');
      case 'store away':
        return this.serverDown(target);
      case 'redis flushed':
        await cluster.flushRedis();
        return;
      case 'postgres backend killed': {
        const serving = childrenOf(this.pidOf('postgres')).filter((pid) =>
          argumentsOf(pid).join(' ').includes('127.0.0.1'),
        );
        if (serving[0]) process.kill(serving[0], 'SIGKILL');
        return;
      }
      case 'redis stopped':
      case 'postgres stopped': {
        const server = this.pidOf(target as ServerName);
        const all = [server, ...childrenOf(server)];
        for (const pid of all) signalIfThere(pid, 'SIGSTOP');
        return () => all.forEach((pid) => signalIfThere(pid, 'SIGCONT'));
      }
      case 'link cut':
      case 'link blackholed': {
        const [process, server] = target.split('>') as [string, ServerName];
        cluster.partition(process, server, kind === 'link cut' ? 'cut' : 'blackhole');
        return () => cluster.heal(process, server);
      }
      default:
        return this.machine(target).breakIt(kind);
    }
  }

  private async down(name: string, signal: NodeJS.Signals) {
    this.downs.add(name);
    // The watch may be about to bring it back.
    await eventually(() => this.cluster.members.get(name)!.child, { withinMs: BACK_MS });
    await this.cluster.end(name, signal);
    return async () => {
      await this.revive(name);
      this.downs.delete(name);
    };
  }

  private async serverDown(target: string, mode?: 'fast' | 'immediate' | 'kill') {
    const server = this.cluster.server(target as ServerName);
    await server.stop(mode);
    return () => server.start();
  }

  /** As a service manager does: again and again, as what it needs may be broken, too. */
  private async revive(name: string): Promise<void> {
    await eventually(() => this.cluster.startProcess(name).then(() => true), {
      withinMs: BACK_MS,
      everyMs: 300,
    });
  }

  private async watch(stop: AbortSignal): Promise<void> {
    while (!stop.aborted) {
      for (const [name, { child }] of this.cluster.members) {
        if (child || this.downs.has(name)) continue;
        this.crashes.push(name);
        this.say(`${name} has ended by itself`);
        this.downs.add(name);
        await this.inTurn(name, async () => {
          await this.revive(name);
          this.downs.delete(name);
        });
      }
      await pause(200, undefined, { signal: stop }).catch(() => undefined);
    }
  }

  private machine(target: string): Machine {
    return this.machines.get(target)!;
  }

  private pidOf(server: ServerName): number {
    return this.cluster.server(server).pid!();
  }
}

function signalIfThere(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
