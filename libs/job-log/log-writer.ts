import type { AttemptRef } from '@longhaul/jobs';
import { LogGapError, type JobLog, type LogStream } from './job-log.js';

/** Writes one stream of one attempt: keeps its offset and its limit. */
export class LogWriter {
  private constructor(
    private readonly log: JobLog,
    private readonly ref: AttemptRef,
    private readonly stream: LogStream,
    private readonly limit: number,
    private size: number,
    private dropped: number,
  ) {}

  static async open(log: JobLog, ref: AttemptRef, stream: LogStream, limit: number): Promise<LogWriter> {
    const { size, dropped } = await log.open(ref, stream);
    return new LogWriter(log, ref, stream, limit, size, dropped);
  }

  /** Where in the source the next byte to write lies: all bytes written, kept or not. */
  get offset(): number {
    return this.size + this.dropped;
  }

  /** Resolves once stored. On a gap (the database lost its last moments) the offset falls back: read the source again. */
  async write(data: Buffer): Promise<void> {
    const kept = data.subarray(0, Math.max(0, this.limit - this.size));
    await this.put(kept, this.dropped + data.length - kept.length);
  }

  /** Notes bytes that the source itself has dropped at its end. */
  async drop(bytes: number): Promise<void> {
    if (bytes > 0) await this.put(Buffer.alloc(0), this.dropped + bytes);
  }

  private async put(kept: Buffer, dropped: number): Promise<void> {
    try {
      await this.log.append(this.ref, this.stream, this.size, kept, dropped);
      this.size += kept.length;
      this.dropped = dropped;
    } catch (error) {
      if (!(error instanceof LogGapError)) throw error;
      this.size = error.size;
      this.dropped = 0;
    }
  }
}
