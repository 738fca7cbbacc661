import { Injectable, type OnApplicationShutdown, type OnModuleInit } from '@nestjs/common';
import { createLogger } from '@longhaul/telemetry';
import pg from 'pg';
import { Database } from './database.js';
import { watch } from './watch.js';

const CHANNEL = 'longhaul_changes';
const RECONNECT_MS = 1_000;
/** Who only listens does not notice that the connection is cut off: it asks something so often. */
const BEAT_MS = 10_000;

/**
 * Tells listeners in this process that a job, a VM or a token has changed in a way that its readers can see. One direct
 * connection a process listens; a notification only says "look again", so a lost one costs latency (listeners poll as a
 * fallback), never truth.
 */
@Injectable()
export class StateChanges implements OnModuleInit, OnApplicationShutdown {
  private readonly log = createLogger('state-changes');
  private readonly listeners = new Map<string, Set<() => void>>();
  private readonly url: string;
  private readonly timeoutMs: number;
  private client: pg.Client | undefined;
  private reconnect: NodeJS.Timeout | undefined;
  private closed = false;

  constructor(database: Database) {
    this.timeoutMs = (database.options.DATABASE_TIMEOUT_SECONDS ?? 10) * 1000;
    this.url = database.options.DATABASE_DIRECT_URL ?? database.options.DATABASE_URL;
  }

  async onModuleInit() {
    await this.connect();
  }

  async onApplicationShutdown() {
    this.closed = true;
    clearTimeout(this.reconnect);
    await this.client?.end();
  }

  /** Calls `listener` after each change of the row of that id until the returned function is called. */
  on(id: string, listener: () => void): () => void {
    const set = this.listeners.get(id) ?? new Set();
    this.listeners.set(id, set.add(listener));
    return () => {
      set.delete(listener);
      if (set.size === 0 && this.listeners.get(id) === set) this.listeners.delete(id);
    };
  }

  private async connect() {
    const client = new pg.Client({
      connectionString: this.url,
      keepAlive: true,
      connectionTimeoutMillis: 5_000,
    });
    client.on('notification', ({ payload }) =>
      this.listeners.get(payload ?? '')?.forEach((listener) => listener()),
    );
    client.on('error', (error) => this.log.warn({ err: error }, 'listening connection failed'));
    let beat: NodeJS.Timeout | undefined;
    client.once('end', () => {
      clearInterval(beat);
      this.connectLater();
    });
    try {
      await client.connect();
      watch(client, this.timeoutMs);
      beat = setInterval(() => void client.query('SELECT 1').catch(() => undefined), BEAT_MS).unref();
      await client.query(`LISTEN ${CHANNEL}`);
      this.client = client;
      // What happened while nobody listened is unknown: everyone looks again.
      for (const set of this.listeners.values()) set.forEach((listener) => listener());
    } catch (error) {
      this.log.warn({ err: error }, 'cannot listen for state changes, polling meanwhile');
      await client.end().catch(() => undefined);
      this.connectLater();
    }
  }

  private connectLater() {
    if (this.closed) return;
    clearTimeout(this.reconnect);
    this.reconnect = setTimeout(() => void this.connect(), RECONNECT_MS);
  }
}
