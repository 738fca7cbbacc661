import { Injectable, type OnApplicationShutdown } from '@nestjs/common';
import { Database, batched } from '@longhaul/persistence';
import { createLogger } from '@longhaul/telemetry';
import type { LogStream } from './job-log.js';

/** Growth is told this late at most, give or take a statement. */
const POLL_MS = 1_000;
/** Streams that one statement looks at, when many are asked for together. */
const SIZES_AT_ONCE = 1_000;

export interface StreamRef {
  jobId: string;
  stream: LogStream;
}

/**
 * Tells listeners in this process that a stream of a job has grown. The database notifies nobody of output, as there is much of
 * it: while anyone listens, one statement a second asks for the sizes of all streams that are listened to.
 */
@Injectable()
export class LogGrowth implements OnApplicationShutdown {
  /** Bytes that a stream holds now. */
  readonly size = batched((streams: StreamRef[]) => this.sizes(streams), SIZES_AT_ONCE);
  private readonly log = createLogger('log-growth');
  private readonly followed = new Map<string, StreamRef & { size?: number; listeners: Set<() => void> }>();
  private timer: NodeJS.Timeout | undefined;
  private polling = false;

  constructor(private readonly db: Database) {}

  onApplicationShutdown() {
    clearInterval(this.timer);
  }

  /** Calls `listener` soon, and after each growth, until the returned function is called. */
  on(ref: StreamRef, listener: () => void): () => void {
    const key = `${ref.jobId} ${ref.stream}`;
    const { listeners } = this.followed.get(key) ?? { listeners: new Set() };
    // Without a size, so that the next poll calls the new listener whatever it has missed.
    this.followed.set(key, { ...ref, listeners: listeners.add(listener) });
    this.timer ??= setInterval(() => void this.poll(), POLL_MS);
    return () => {
      listeners.delete(listener);
      if (listeners.size === 0 && this.followed.get(key)?.listeners === listeners) this.followed.delete(key);
      if (this.followed.size > 0) return;
      clearInterval(this.timer);
      this.timer = undefined;
    };
  }

  private async poll(): Promise<void> {
    if (this.polling) return;
    this.polling = true;
    try {
      const followed = [...this.followed.values()];
      const sizes = await this.sizes(followed);
      followed.forEach((stream, index) => {
        if (stream.size === sizes[index]) return;
        stream.size = sizes[index];
        stream.listeners.forEach((listener) => listener());
      });
    } catch (error) {
      this.log.warn({ err: error }, 'cannot look for growth of logs');
    } finally {
      this.polling = false;
    }
  }

  private async sizes(streams: StreamRef[]): Promise<number[]> {
    const rows = await this.db.$queryRaw<{ at: bigint; size: bigint }[]>`
      SELECT at, size FROM job_log_streams JOIN
        unnest(${streams.map(({ jobId }) => jobId)}::uuid[], ${streams.map(({ stream }) => stream)}::text[])
        WITH ORDINALITY AS wanted (job_id, stream, at) USING (job_id, stream)`;
    const sizes = new Map(rows.map(({ at, size }) => [Number(at) - 1, Number(size)]));
    return streams.map((_stream, index) => sizes.get(index) ?? 0);
  }
}
