/**
 * Looks that go on beside each other: at most `slots`, one of each name. One that takes longer than `lateMs` gives its slot
 * back. Who was late or failed is left alone for `quietMs` afterwards, so that those who answer get the slots.
 */
export class LookPool {
  /** Until when each name is left alone, as `performance.now` counts; Infinity while the look goes on. */
  private readonly until = new Map<string, number>();
  private taken = 0;

  constructor(private readonly options: { slots: number; lateMs: number; quietMs: number }) {}

  get free(): number {
    return this.options.slots - this.taken;
  }

  /** Names that are not looked at now. */
  leftAlone(): string[] {
    for (const [name, until] of this.until) if (until <= performance.now()) this.until.delete(name);
    return [...this.until.keys()];
  }

  /** Resolves when the look is over or late; with the error when it failed. */
  async run(name: string, look: () => Promise<void>): Promise<unknown> {
    const { lateMs, quietMs } = this.options;
    this.until.set(name, Infinity);
    this.taken++;
    let late = false;
    const quiet = () => this.until.set(name, performance.now() + quietMs);
    const over = look().then(
      () => void (late ? quiet() : this.until.delete(name)),
      (error: unknown) => (quiet(), error),
    );
    let timer: NodeJS.Timeout | undefined;
    const lateness = new Promise<Error>((resolve) => {
      timer = setTimeout(() => {
        late = true;
        resolve(new Error(`The look at ${name} takes longer than ${lateMs} ms`));
      }, lateMs).unref();
    });
    const outcome = await Promise.race([over, lateness]);
    clearTimeout(timer);
    this.taken--;
    return outcome;
  }
}
