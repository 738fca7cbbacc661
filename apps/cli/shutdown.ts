const GRACE_MS = 1_000;

interface Step {
  name: string;
  timeoutMs: number;
  stop: () => Promise<unknown>;
}

/**
 * Ends things in the opposite order of their beginning when SIGINT, SIGTERM or SIGHUP arrives, each in bounded time, then
 * the process. A second signal ends the process at once: the API and the worker end when they notice, and the next start
 * takes over what is left.
 */
export class Shutdown {
  private readonly steps: Step[] = [];
  private readonly controller = new AbortController();
  private begunAt: number | undefined;
  /** Aborted when the end begins. */
  readonly signal = this.controller.signal;

  constructor(private readonly say: (message: string) => void) {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => this.onSignal());
  }

  add(name: string, timeoutMs: number, stop: () => Promise<unknown>): void {
    this.steps.push({ name, timeoutMs, stop });
  }

  /** Runs all steps; one that fails or takes too long does not keep the others from theirs. */
  async run(): Promise<void> {
    this.begunAt ??= performance.now();
    this.controller.abort();
    for (let step = this.steps.pop(); step; step = this.steps.pop()) {
      const { name, timeoutMs, stop } = step;
      this.say(`Stopping: ${name}`);
      let timer: NodeJS.Timeout | undefined;
      const timeout = new Promise<never>((_resolve, reject) => {
        timer = setTimeout(() => reject(new Error(`it took over ${timeoutMs / 1000} s`)), timeoutMs);
      });
      await Promise.race([stop(), timeout])
        .catch((error: Error) => this.say(`${name} did not stop in order: ${error.message}`))
        .finally(() => clearTimeout(timer));
    }
  }

  private onSignal(): void {
    // npm passes on a Ctrl-C that the terminal has sent us as well: what comes together is one.
    if (this.begunAt !== undefined && performance.now() - this.begunAt < GRACE_MS) return;
    if (this.begunAt === undefined) {
      void this.run().finally(() => process.exit(0));
      return;
    }
    this.say('Ending at once; the next start takes over what is left.');
    process.exit(1);
  }
}
