import type { AttemptRef } from '@longhaul/jobs';
import { metrics } from '@longhaul/telemetry';
import { LogGapError, type JobLog, type LogStream } from './job-log.js';

/** Writes one stream of one attempt: knows where it ends and how much it may hold. */
export class LogWriter {
  private constructor(
    private readonly log: JobLog,
    private readonly ref: AttemptRef,
    private readonly stream: LogStream,
    private readonly limit: number,
    private state: { size: number; dropped: number },
  ) {}

  static async open(log: JobLog, ref: AttemptRef, stream: LogStream, limit: number): Promise<LogWriter> {
    return new LogWriter(log, ref, stream, limit, await log.open(ref, stream));
  }

  /** Bytes stored: where a source that can be read again is to be read from. */
  get size(): number {
    return this.state.size;
  }

  /**
   * Resolves once stored; what exceeds the limit is counted, not kept. When the database has lost its last moments `size`
   * falls back instead: read the source again from there.
   */
  async write(data: Buffer): Promise<void> {
    if (data.length === 0) return;
    const kept = data.subarray(0, Math.max(0, this.limit - this.size));
    await this.put(kept, this.state.dropped + data.length - kept.length);
  }

  /** Has what is being written stored at once, rather than a moment later with what others write. */
  flush(): Promise<void> {
    return this.log.flush();
  }

  /** Notes how many bytes the source itself did not keep, in all. */
  async setDropped(bytes: number): Promise<void> {
    if (bytes > this.state.dropped) await this.put(Buffer.alloc(0), bytes);
  }

  private async put(kept: Buffer, dropped: number): Promise<void> {
    try {
      await this.log.append(this.ref, this.stream, this.size, kept, dropped);
      this.state = { size: this.size + kept.length, dropped };
      metrics.logBytes.inc({ stream: this.stream }, kept.length);
    } catch (error) {
      if (!(error instanceof LogGapError)) throw error;
      this.state = { ...this.state, size: error.size };
    }
  }
}
