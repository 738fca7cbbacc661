import { Injectable, type OnModuleDestroy } from '@nestjs/common';

/** What takes longer to answer is as good as away. */
const CHECK_MS = 2_000;
/** However many probes come, nobody is asked more often. */
const FRESH_MS = 1_000;

/** Asks one thing that the process cannot work without; rejects when it is away. */
export type Check = (signal: AbortSignal) => Promise<unknown>;

/** `failed` names what is away, and says no more of it: anybody may ask. */
export interface Verdict {
  status: 'ready' | 'not_ready' | 'stopping';
  failed?: string[];
}

/** Whether the process can do its work now. One that is told to stop is not ready, so that nobody sends it more. */
@Injectable()
export class Readiness implements OnModuleDestroy {
  /** Probes hear it, and whoever sends requests here has time to turn away before the process is deaf. */
  stopping = false;
  private last?: { at: number; failed: Promise<string[]> };
  /** A check that hangs is not begun again beside itself. */
  private readonly hanging = new Map<string, Promise<unknown>>();

  constructor(private readonly checks: Readonly<Record<string, Check>>) {}

  onModuleDestroy() {
    this.stopping = true;
  }

  async verdict(): Promise<Verdict> {
    if (this.stopping) return { status: 'stopping' };
    if (!this.last || performance.now() - this.last.at > FRESH_MS)
      this.last = { at: performance.now(), failed: this.look() };
    const failed = await this.last.failed;
    return failed.length === 0 ? { status: 'ready' } : { status: 'not_ready', failed };
  }

  private async look(): Promise<string[]> {
    const names = Object.keys(this.checks);
    const answers = await Promise.all(names.map((name) => this.answers(name)));
    return names.filter((_name, index) => !answers[index]);
  }

  private answers(name: string): Promise<boolean> {
    const late = AbortSignal.timeout(CHECK_MS);
    let asked = this.hanging.get(name);
    if (!asked) {
      asked = this.checks[name]!(late).finally(() => this.hanging.delete(name));
      this.hanging.set(name, asked);
    }
    return new Promise((resolve) => {
      late.addEventListener('abort', () => resolve(false));
      asked.then(
        () => resolve(true),
        () => resolve(false),
      );
    });
  }
}
