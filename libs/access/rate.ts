import { AppError } from '@longhaul/errors';
import type { RateLimiterRes } from 'rate-limiter-flexible';

export const WINDOW_SECONDS = 60;

/** Points that a process takes from the store at once: this share of the limit, so that few calls wait for the store. */
const SHARE = 0.02;
const SHARE_MAX = 100;
/** Keys that a process knows something about; of one that is forgotten the store is asked. */
const KEYS_MAX = 10_000;

/** What counts over all processes; `penalty` adds points to the window of a key, and never refuses. */
export interface Limiter {
  penalty(key: string, points: number): Promise<RateLimiterRes>;
}

/** What this process may still let through of a key's present window. */
interface Share {
  left: number;
  /** The window has no more to give. */
  isSpent: boolean;
  endsAt: number;
}

/**
 * At most `limit` of something in each window of a minute that begins with its first use, over all processes together. Each takes
 * a share at a time from the store and passes it on by itself. So never more than the limit gets through; less may,
 * by what other processes have taken and not used: at most 2 % of the limit each (of a limit below 100, nothing).
 */
export class Rate {
  private readonly shares = new Map<string, Share>();
  private readonly asked = new Map<string, Promise<void>>();
  private readonly size: number;

  constructor(
    private readonly store: Limiter,
    private readonly limit: number,
    private readonly message: string,
  ) {
    this.size = Math.min(Math.max(Math.floor(limit * SHARE), 1), SHARE_MAX);
  }

  /** Errors: `rate_limited`, `details.retry_after` being the seconds to the next window. */
  async take(key: string): Promise<void> {
    if (this.limit === 0) return;
    for (;;) {
      const share = this.shares.get(key);
      const leftMs = share ? share.endsAt - performance.now() : 0;
      if (share && leftMs > 0) {
        if (share.left > 0) {
          share.left--;
          return;
        }
        if (share.isSpent) {
          const details = {
            retry_after: Math.ceil(leftMs / 1000),
            limit: this.limit,
            window_seconds: WINDOW_SECONDS,
          };
          throw new AppError(
            'rate_limited',
            `${this.message}. Try again in ${details.retry_after} s.`,
            details,
          );
        }
      }
      await this.ask(key);
    }
  }

  /** Those who come while the store is asked wait for the same answer. */
  private ask(key: string): Promise<void> {
    const asked = this.asked.get(key) ?? this.refill(key).finally(() => this.asked.delete(key));
    this.asked.set(key, asked);
    return asked;
  }

  private async refill(key: string): Promise<void> {
    const { consumedPoints, msBeforeNext } = await this.store.penalty(key, this.size);
    const before = consumedPoints - this.size;
    const left = Math.min(Math.max(this.limit - before, 0), this.size);
    // The end of a window that is over already is for the next round to find.
    const endsAt = performance.now() + Math.max(msBeforeNext, 1);
    this.shares.delete(key);
    this.shares.set(key, { left, isSpent: left < this.size, endsAt });
    const [oldest] = this.shares.keys();
    if (this.shares.size > KEYS_MAX) this.shares.delete(oldest!);
  }
}
