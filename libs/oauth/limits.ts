import type { Counter, Rates } from '@longhaul/access';
import { RateLimiterRes } from 'rate-limiter-flexible';
import { hashId } from './ids.js';

/** What strangers may do so often in so many seconds, over all replicas together. */
const LIMITS = {
  /** Passwords tried for one address from one place. */
  login: { points: 10, duration: 900 },
  loginFrom: { points: 50, duration: 900 },
  loginAs: { points: 100, duration: 900 },
  authorize: { points: 120, duration: 60 },
  register: { points: 60, duration: 3600 },
  registerAll: { points: 1000, duration: 3600 },
  /** Metadata documents of clients fetched, from whoever asks. */
  fetchAll: { points: 300, duration: 60 },
};

export type Limit = keyof typeof LIMITS;

export class Limits {
  private readonly counters: Map<string, Counter>;

  constructor(rates: Rates, registrations: number) {
    const limits = { ...LIMITS, register: { ...LIMITS.register, points: registrations } };
    this.counters = new Map(
      Object.entries(limits).map(([name, { points, duration }]) => [
        name,
        rates.counter(`oauth ${name}`, points, duration),
      ]),
    );
  }

  /** Counts one of each; answers for how many seconds it is too often, or 0. */
  async take(...of: [limit: Limit, key: string][]): Promise<number> {
    try {
      for (const [limit, key] of of) await this.counters.get(limit)!.consume(storable(key));
      return 0;
    } catch (thrown) {
      if (thrown instanceof RateLimiterRes) return Math.ceil(thrown.msBeforeNext / 1000);
      throw thrown;
    }
  }

  /** Takes one of each back: it was not what is limited. */
  async giveBack(...of: [limit: Limit, key: string][]): Promise<void> {
    for (const [limit, key] of of) await this.counters.get(limit)!.reward(storable(key));
  }
}

/** Whatever somebody has typed: of any length, with a NUL, or the password itself. */
const storable = hashId;
