import { AppError } from '@longhaul/errors';

/** How many of something go on at once in this process, in all and of each. */
export class Slots {
  private readonly held = new Map<string, number>();
  private total = 0;

  constructor(
    private readonly limits: { all: number; each: number },
    private readonly what: string,
  ) {}

  /** Answers what gives the slot back, which may be called again. Errors: `rate_limited`. */
  take(of: string): () => void {
    const mine = this.held.get(of) ?? 0;
    if (this.total >= this.limits.all || mine >= this.limits.each)
      throw new AppError('rate_limited', `Too many ${this.what} are under way.`, { retry_after: 2 });
    this.held.set(of, mine + 1);
    this.total++;
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      this.total--;
      const left = this.held.get(of)! - 1;
      if (left > 0) this.held.set(of, left);
      else this.held.delete(of);
    };
  }
}
