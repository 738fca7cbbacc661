import { once } from 'node:events';
import { Inject, Injectable, type OnApplicationShutdown, type OnModuleInit } from '@nestjs/common';
import { CONFIG, envInteger } from '@longhaul/config';
import { Database, type Prisma } from '@longhaul/persistence';
import { createLogger } from '@longhaul/telemetry';
import { Redis } from 'ioredis';
import {
  RateLimiterMemory,
  RateLimiterPostgres,
  RateLimiterRedis,
  type RateLimiterAbstract,
} from 'rate-limiter-flexible';
import { z } from 'zod';
import type { Caller } from './caller.js';
import { Rate, WINDOW_SECONDS, type Limiter } from './rate.js';

const limit = envInteger(0, 1_000_000);

export const ratesConfig = z.object({
  RATE_CALLS: limit
    .default(12_000)
    .describe('Calls a minute of one user, over all tokens and replicas; 0: without limit'),
  RATE_VM_CALLS: limit
    .default(3_000)
    .describe('Calls a minute that name one VM, of all who may; 0: without limit'),
  RATE_SUBMISSIONS: limit
    .default(1_200)
    .describe('Calls a minute of one user that make a job; 0: without limit'),
});

export type Counter = Pick<RateLimiterAbstract, 'consume' | 'reward'>;

type Config = z.output<typeof ratesConfig> & { QUEUE_URL?: string };

/** Nobody waits longer for the store: then this process counts alone for a while. */
const STORE_TIMEOUT_MS = 500;

/**
 * How often something may be done, counted over all replicas in the store that the queue has: Redis, or else PostgreSQL. Each
 * limit is one of its own, so that reading jobs does not use up what submitting needs.
 */
@Injectable()
export class Rates implements OnModuleInit, OnApplicationShutdown {
  private readonly log = createLogger('rates');
  private readonly redis?: Redis;
  private readonly calls: Rate;
  private readonly vmCalls: Rate;
  private readonly submissions: Rate;

  constructor(
    private readonly db: Database,
    @Inject(CONFIG) { QUEUE_URL, RATE_CALLS, RATE_VM_CALLS, RATE_SUBMISSIONS }: Config,
  ) {
    if (QUEUE_URL?.startsWith('redis')) this.redis = this.connect(QUEUE_URL);
    this.calls = this.rate('call', RATE_CALLS, 'You make more calls than this server lets one user make');
    this.vmCalls = this.rate(
      'vm',
      RATE_VM_CALLS,
      'There are more calls about this VM than this server lets through',
    );
    this.submissions = this.rate(
      'job',
      RATE_SUBMISSIONS,
      'You submit more jobs than this server lets one user submit',
    );
  }

  /** Errors of all: `rate_limited`, with `details.retry_after` in seconds. */
  call({ userId }: Pick<Caller, 'userId'>): Promise<void> {
    return this.calls.take(userId);
  }

  /** Only for who may see the VM: a stranger must not use up what its owner may do. */
  vmCall(vmId: string): Promise<void> {
    return this.vmCalls.take(vmId);
  }

  submission({ userId }: Pick<Caller, 'userId'>): Promise<void> {
    return this.submissions.take(userId);
  }

  /**
   * Counts in the same store what is rare enough to ask it each time: `consume` rejects with a RateLimiterRes beyond `points` in
   * `duration` seconds, `reward` takes back. While the store is away this process counts alone.
   */
  counter(keyPrefix: string, points: number, duration: number): Counter {
    const options = { keyPrefix, points, duration };
    return this.limiter({ ...options, insuranceLimiter: new RateLimiterMemory(options) });
  }

  /** So that the first calls are counted with those of others. */
  async onModuleInit(): Promise<void> {
    const { redis } = this;
    if (redis && redis.status !== 'ready')
      await Promise.race([once(redis, 'ready'), once(redis, 'close')]).catch(() => undefined);
  }

  onApplicationShutdown(): void {
    this.redis?.disconnect();
  }

  private rate(keyPrefix: string, points: number, message: string): Rate {
    const options = { keyPrefix, points, duration: WINDOW_SECONDS };
    return new Rate(
      this.limiter({ ...options, insuranceLimiter: new RateLimiterMemory(options) }),
      points,
      message,
    );
  }

  private limiter(
    options: ConstructorParameters<typeof RateLimiterMemory>[0] & { insuranceLimiter: RateLimiterMemory },
  ): Limiter & Counter {
    if (this.redis) {
      return new RateLimiterRedis({ ...options, storeClient: this.redis, rejectIfRedisNotReady: true });
    }
    return new RateLimiterPostgres({
      ...options,
      storeClient: { query: (statement: Statement) => this.query(statement) },
      storeType: 'client',
      tableName: 'rate_limits',
      tableCreated: true,
      clearExpiredByTimeout: true,
    });
  }

  /**
   * On the connections that every statement runs on. The limiter goes by the clock of its process; a window that replicas share
   * goes by the database's: so the times that it gives and is given are moved from one to the other.
   */
  private async query({ text, values }: Statement): Promise<{ rows: object[]; rowCount: number }> {
    const aheadMs = (await this.db.now()).getTime() - Date.now();
    const shared = values.map((value) =>
      typeof value === 'number' && value > EPOCH_MS ? value + aheadMs : value,
    );
    const rows = await this.db.rows<{ expire: string | null }>({ text, values: shared });
    const own = rows.map((row) => ({ ...row, expire: row.expire && Number(row.expire) - aheadMs }));
    return { rows: own, rowCount: rows.length };
  }

  private connect(url: string): Redis {
    const redis = new Redis(url, {
      enableOfflineQueue: false,
      maxRetriesPerRequest: 0,
      commandTimeout: STORE_TIMEOUT_MS,
      retryStrategy: (times) => Math.min(times * 100, 2_000),
    });
    redis.on('error', (error) => this.log.debug({ err: error }, 'the store of rates is away'));
    return redis;
  }
}

/** A number above it is a time in milliseconds: no limit has so many points. */
const EPOCH_MS = 1e12;

type Statement = Pick<Prisma.Sql, 'text' | 'values'>;
