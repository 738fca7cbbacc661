import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import type { Vm } from '@longhaul/persistence';
import type { NamespaceAgent } from '../support/namespace-agent.js';
import type { FaultKind } from './schedule.js';

/** Relative to /var/lib/longhaul of a guest, which survives its resets: what commands have noted of themselves. */
export const MARKS = 'chaos.marks';

/** A VM that the run works on, breaks and looks into. */
export interface Machine {
  name: string;
  vm: Vm;
  token: string;
  /** Times at which its guest was cut, in milliseconds since the epoch. */
  resets: { from: number; until: number }[];
  breakIt(kind: FaultKind): Promise<(() => Promise<void> | void) | undefined>;
  marks(): Promise<string>;
  /** SHA-256 is for the caller; undefined where there is no such file. */
  file(path: string): Promise<Buffer | undefined>;
  /** What is left in the guest of jobs that have ended. */
  leftovers(): Promise<string[]>;
}

/** A guest agent in a namespace: its files and processes are seen from outside. */
export class AgentMachine implements Machine {
  readonly resets: Machine['resets'] = [];

  constructor(
    readonly name: string,
    readonly vm: Vm,
    readonly token: string,
    private readonly agent: NamespaceAgent,
  ) {}

  async breakIt(kind: FaultKind) {
    switch (kind) {
      case 'guest agent killed':
        this.agent.signal('SIGKILL');
        return;
      case 'guest agent stopped':
        this.agent.signal('SIGSTOP');
        return () => this.agent.signal('SIGCONT');
      case 'guest reset': {
        const reset = { from: Date.now(), until: Infinity };
        this.resets.push(reset);
        await this.agent.reboot();
        reset.until = Date.now();
        return;
      }
      default:
        throw new Error(`a namespace knows no ${kind}`);
    }
  }

  async marks(): Promise<string> {
    return readIfThere(join(this.agent.stateDirectory, MARKS))?.toString() ?? '';
  }

  async file(path: string): Promise<Buffer | undefined> {
    return readIfThere(join('/proc', String(this.agent.pid()), 'root', path));
  }

  async leftovers(): Promise<string[]> {
    const init = this.agent.pid();
    const space = readlinkSync(`/proc/${init}/ns/pid`);
    const inside = readdirSync('/proc').filter((pid) => /^\d+$/.test(pid) && spaceOf(pid) === space);
    // What a worker left open when it was cut off is closed by the next session, which the workers' looks at each guest are.
    const found = this.agent
      .openFiles()
      .filter((path) => /longhaul\/(jobs|epoch)|^\/proc\/|chaos/.test(path))
      .map((path) => `open in the agent of ${this.name}: ${path}`);
    for (const pid of inside) {
      const command =
        readIfThere(`/proc/${pid}/cmdline`)?.toString().replaceAll('\0', ' ').slice(0, 300) ?? '';
      if (Number(pid) === init || command === '') continue;
      if (!command.startsWith('qemu-ga ')) found.push(`process in ${this.name}: ${command}`);
    }
    return found;
  }
}

function spaceOf(pid: string): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/pid`);
  } catch {
    return undefined;
  }
}

function readIfThere(path: string): Buffer | undefined {
  try {
    return readFileSync(path);
  } catch (error) {
    if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return undefined;
    throw error;
  }
}
