import { once } from 'node:events';
import { persistenceConfig, whenUp } from '@longhaul/persistence';
import { createPostgresBackend, runMigrations, setDefaultBackendFactory, type QueueOptions } from 'bullmq';
import { Redis } from 'ioredis';
import pg from 'pg';
import { z } from 'zod';

export const jobQueueConfig = z.object({
  DATABASE_URL: persistenceConfig.shape.DATABASE_URL,
  QUEUE_URL: z
    .string()
    .regex(/^(rediss?|postgres(ql)?):\/\//)
    .optional()
    .describe('Redis (redis://…) or PostgreSQL (postgres://…) that delivers jobs; default: DATABASE_URL'),
});

/** A submission never waits longer than this for the queue: the row is the outbox, recovery delivers later. */
export const DELIVERY_TIMEOUT_MS = 500;

/** A connection without an answer for so long is made anew: one that was cut off without a word would stay so. */
const PRODUCER_SILENCE_MS = 2_000;
/** The same of workers, who wait for work up to 10 s at a time. */
const WORKER_SILENCE_MS = 25_000;

type Connection = QueueOptions['connection'];

interface Producer {
  connection: Connection;
  isUp: () => boolean;
  /** Rejects when the queue does not answer. */
  ping: () => Promise<unknown>;
  /** Resolves when it is up, or has failed for the first time. */
  tried: Promise<unknown>;
  close: () => Promise<unknown>;
}

/** How to reach the queue: what the URL says decides between Redis and BullMQ's PostgreSQL backend, here and nowhere else. */
export class QueueConnection {
  private readonly url: string;
  private readonly usesRedis: boolean;

  private constructor(config: z.output<typeof jobQueueConfig>) {
    this.url = config.QUEUE_URL ?? config.DATABASE_URL;
    this.usesRedis = this.url.startsWith('redis');
    // BullMQ's types know Redis only; a backend is chosen for the whole process.
    if (!this.usesRedis) setDefaultBackendFactory(createPostgresBackend as never);
  }

  /** Makes BullMQ's own tables where PostgreSQL is the queue, for which it waits; safe when many processes start at once. */
  static async open(config: z.output<typeof jobQueueConfig>): Promise<QueueConnection> {
    const connection = new QueueConnection(config);
    if (connection.usesRedis) return connection;
    await whenUp(async () => {
      const client = new pg.Client({ connectionString: connection.url, connectionTimeoutMillis: 5_000 });
      client.on('error', () => undefined);
      await client.connect();
      await runMigrations(client).finally(() => client.end());
    });
    return connection;
  }

  /** Options for workers, which wait for a lost queue to come back. */
  forWorkers(): Connection {
    if (this.usesRedis)
      return { url: this.url, maxRetriesPerRequest: null, socketTimeout: WORKER_SILENCE_MS };
    return { connectionString: this.url, max: 4, keepAlive: true } as never;
  }

  /** One connection that all queues of a producing process share, and that fails instead of waiting. */
  forProducers(): Producer {
    if (this.usesRedis) {
      const redis = new Redis(this.url, {
        enableOfflineQueue: false,
        maxRetriesPerRequest: 0,
        commandTimeout: DELIVERY_TIMEOUT_MS,
        socketTimeout: PRODUCER_SILENCE_MS,
        retryStrategy: (times) => Math.min(times * 100, 2_000),
      });
      redis.on('error', () => undefined);
      const tried = Promise.race([once(redis, 'ready'), once(redis, 'close')]).catch(() => undefined);
      const close = async () => redis.disconnect();
      const isUp = () => redis.status === 'ready';
      return { connection: redis as never, isUp, ping: () => redis.ping(), tried, close };
    }
    const pool = new pg.Pool({
      connectionString: this.url,
      max: 4,
      connectionTimeoutMillis: DELIVERY_TIMEOUT_MS,
      query_timeout: DELIVERY_TIMEOUT_MS,
      keepAlive: true,
      options: '-c search_path=bullmq',
    });
    pool.on('error', () => undefined);
    pool.on('connect', (client) => client.on('error', () => undefined));
    return {
      connection: pool as never,
      isUp: () => true,
      ping: () => pool.query('SELECT 1'),
      tried: Promise.resolve(),
      close: () => pool.end(),
    };
  }
}
