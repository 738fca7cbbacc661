import { Injectable } from '@nestjs/common';
import { envInteger } from '@longhaul/config';
import { FencedError, type AttemptRef } from '@longhaul/jobs';
import { Database, Prisma } from '@longhaul/persistence';
import { z } from 'zod';
import { LogArchive, type ArchivedPiece } from './archive.js';

export const STREAMS = ['stdout', 'stderr', 'system'] as const;
export type LogStream = (typeof STREAMS)[number];

export const jobLogConfig = z.object({
  LOG_STREAM_LIMIT: envInteger(1024, 2 ** 40)
    .default(64 * 1024 * 1024)
    .describe('Bytes kept of each stream of a job; what comes after is counted and dropped'),
  LOG_ARCHIVE_HOURS: envInteger(0, 87_600)
    .default(24)
    .describe(
      'The log of a job is moved to where files are kept, compressed, this long after its end; 0: it stays in the database',
    ),
});

/** Bytes of one stored chunk; a slice anywhere in a log of any size reads only the chunks it lies in. */
const CHUNK_BYTES = 64 * 1024;
/** Rows one read looks at: a log of tiny chunks answers a shorter slice, never a slower one. */
const CHUNKS_READ = 1024;
/**
 * Appends of many commands share a commit: there is one in this time at most, unless it is full. The first after a while only
 * waits for those that come with it, as somebody may be watching.
 */
const BATCH_MS = 100;
const GATHER_MS = 5;
const BATCH_BYTES = 1024 * 1024;

export interface LogSlice {
  data: Buffer;
  /** Bytes the stream holds now. */
  size: number;
  /** Bytes that came after the stream's limit and were not kept. */
  dropped: number;
  /** The job has ended: nothing will come after `size`. */
  closed: boolean;
}

/** The stream is shorter than the writer believes: it must look at `size` and go on from there. */
export class LogGapError extends Error {
  override name = 'LogGapError';
  constructor(readonly size: number) {
    super(`the stream ends at ${size}`);
  }
}

interface Append {
  ref: AttemptRef;
  stream: LogStream;
  offset: number;
  data: Buffer;
  dropped: number;
  resolve: () => void;
  reject: (error: unknown) => void;
}

@Injectable()
export class JobLog {
  private waiting: Append[] = [];
  private timer: NodeJS.Timeout | undefined;
  private flushedAt = -Infinity;

  /** Who only writes, or reads only what is not archived, needs no `archive`. */
  constructor(
    private readonly db: Database,
    private readonly archive?: LogArchive,
  ) {}

  /** Makes the stream if it is not there yet; answers where it ends. */
  async open(ref: AttemptRef, stream: LogStream): Promise<{ size: number; dropped: number }> {
    const [row] = await this.db.$queryRaw<{ size: bigint; dropped: bigint }[]>`
      WITH made AS (
        INSERT INTO job_log_streams (job_id, stream) VALUES (${ref.jobId}::uuid, ${stream})
        ON CONFLICT DO NOTHING RETURNING size, dropped)
      SELECT size, dropped FROM made
      UNION ALL SELECT size, dropped FROM job_log_streams WHERE job_id = ${ref.jobId}::uuid AND stream = ${stream}`;
    return { size: Number(row!.size), dropped: Number(row!.dropped) };
  }

  /**
   * Appends `data` at `offset` of an opened stream. At most one append of a stream may be under way. Bytes that are there
   * already are compared and skipped. Throws LogGapError when the stream ends before `offset`, FencedError when the
   * attempt is not current. `dropped` is the stream's count of bytes not kept.
   */
  append(ref: AttemptRef, stream: LogStream, offset: number, data: Buffer, dropped = 0): Promise<void> {
    return new Promise((resolve, reject) => {
      this.waiting.push({ ref, stream, offset, data, dropped, resolve, reject });
      const bytes = this.waiting.reduce((sum, append) => sum + append.data.length, 0);
      if (bytes >= BATCH_BYTES) void this.flush();
      else this.timer ??= setTimeout(() => void this.flush(), this.nextInMs());
    });
  }

  private nextInMs(): number {
    return Math.max(GATHER_MS, this.flushedAt + BATCH_MS - performance.now());
  }

  /** Writes what waits, without waiting for more. */
  async flush(): Promise<void> {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.flushedAt = performance.now();
    const batch = this.waiting.splice(0);
    if (batch.length === 0) return;
    try {
      const stored = await this.store(batch);
      await Promise.all(
        batch.map(async (append) => {
          if (stored.has(`${append.ref.jobId} ${append.stream}`)) append.resolve();
          else await this.settle(append).then(append.resolve, append.reject);
        }),
      );
    } catch (error) {
      batch.forEach(({ reject }) => reject(error));
    }
  }

  /**
   * One statement for the whole batch. It may be lost in a crash of PostgreSQL (asynchronous commit): the guest still has
   * the bytes, and the next append then meets a gap. The shared lock on the job makes a later claim wait for it.
   * Jobs are locked in the order of their ids, as heartbeats do: two that want the same ones must not wait for each other.
   */
  private async store(batch: Append[]): Promise<Set<string>> {
    // One value of bytes, which `pg` sends as they are: arrays of them it would spell out in hexadecimal, and Prisma in base64.
    const data = batch.length === 1 ? batch[0]!.data : Buffer.concat(batch.map((append) => append.data));
    const rows = await this.db.rows<{ key: string }>(Prisma.sql`
      WITH lengths AS (
        SELECT * FROM unnest(${batch.map(({ ref }) => ref.jobId)}::uuid[], ${batch.map(({ ref }) => ref.attempt)}::int[],
          ${batch.map(({ stream }) => stream)}::text[], ${batch.map(({ offset }) => offset)}::bigint[],
          ${batch.map(({ dropped }) => dropped)}::bigint[], ${batch.map(({ data }) => data.length)}::int[])
          WITH ORDINALITY AS lengths (job_id, attempt, stream, start, dropped, length, number)),
      input AS (
        SELECT job_id, attempt, stream, start, dropped, substring(${data}::bytea FROM
          (sum(length) OVER (ORDER BY number) - length + 1)::int FOR length) AS data FROM lengths),
      held AS MATERIALIZED (
        SELECT jobs.id FROM jobs JOIN (SELECT DISTINCT job_id, attempt FROM input) AS wanted
          ON jobs.id = wanted.job_id AND jobs.attempt = wanted.attempt
        WHERE state = 'running' ORDER BY jobs.id FOR SHARE OF jobs),
      grown AS (
        UPDATE job_log_streams AS streams SET size = streams.size + length(input.data), dropped = input.dropped
        FROM input JOIN held ON held.id = input.job_id
        WHERE streams.job_id = input.job_id AND streams.stream = input.stream AND streams.size = input.start
        RETURNING input.*),
      stored AS (
        INSERT INTO job_log_chunks (job_id, stream, "offset", data)
        SELECT job_id, stream, start + at, substring(data FROM at + 1 FOR ${CHUNK_BYTES}::int)
        FROM grown, generate_series(0, length(data) - 1, ${CHUNK_BYTES}::int) AS at)
      SELECT job_id || ' ' || stream AS key, set_config('synchronous_commit', 'off', true) FROM grown`);
    return new Set(rows.map(({ key }) => key));
  }

  /** An append that was not stored as it is: fenced, behind (skip what is there) or ahead of the stream's end. */
  private async settle({ ref, stream, offset, data, dropped }: Append): Promise<void> {
    const job = await this.db.job.findUnique({
      where: { id: ref.jobId },
      select: { attempt: true, state: true },
    });
    if (job?.attempt !== ref.attempt || job.state !== 'running') throw new FencedError(ref);
    const { size } = await this.open(ref, stream);
    if (size < offset) throw new LogGapError(size);
    const overlap = Math.min(size - offset, data.length);
    for (let at = 0; at < overlap;) {
      const { data: there } = await this.read(ref.jobId, stream, offset + at, overlap - at);
      if (there.length === 0 || !there.equals(data.subarray(at, at + there.length))) {
        throw new Error(
          `stream ${stream} of job ${ref.jobId} differs from what is stored near offset ${offset + at}`,
        );
      }
      at += there.length;
    }
    if (overlap < data.length) await this.append(ref, stream, size, data.subarray(overlap), dropped);
  }

  /**
   * At most `maxBytes` of a stream from `offset`; no bytes beyond its end. All of one answer is of one moment. Errors:
   * `unavailable` while the store with its archived part does not answer, `log_damaged`.
   */
  async read(jobId: string, stream: LogStream, offset: number, maxBytes: number): Promise<LogSlice> {
    const { piece, ...slice } = await this.look(jobId, stream, offset, maxBytes);
    if (!piece || maxBytes === 0) return slice;
    const data = await this.archive!.read(piece, offset, maxBytes);
    // What is archived has come to its end, so the next piece is of the same moment.
    const next = offset + data.length;
    const left = Math.min(slice.size - next, maxBytes - data.length);
    if (left <= 0) return { ...slice, data };
    return { ...slice, data: Buffer.concat([data, (await this.read(jobId, stream, next, left)).data]) };
  }

  /** The slice as far as it is in chunks, or the archived piece that it begins in: one statement in any case. */
  private async look(
    jobId: string,
    stream: LogStream,
    offset: number,
    maxBytes: number,
  ): Promise<LogSlice & { piece?: ArchivedPiece }> {
    const rows = await this.db.$queryRaw<
      {
        size: bigint | null;
        dropped: bigint | null;
        closed: boolean;
        piece: ArchivedPiece | null;
        start: bigint | null;
        data: Uint8Array | null;
      }[]
    >`
      SELECT streams.size, streams.dropped, jobs.finished_at IS NOT NULL AS closed, to_jsonb(piece) AS piece,
        chunks."offset" AS start, chunks.data
      FROM jobs
      LEFT JOIN job_log_streams AS streams ON streams.job_id = jobs.id AND streams.stream = ${stream}
      LEFT JOIN LATERAL (
        SELECT id, "offset", size, frames FROM job_log_archives AS a
        WHERE streams.archived > ${offset}::bigint AND a.job_id = jobs.id AND a.stream = ${stream}
          AND a."offset" <= ${offset}::bigint
        ORDER BY "offset" DESC LIMIT 1) AS piece ON true
      LEFT JOIN LATERAL (
        SELECT "offset", data FROM job_log_chunks AS c
        WHERE c.job_id = jobs.id AND c.stream = ${stream} AND c."offset" < ${offset}::bigint + ${maxBytes}::bigint
          AND c."offset" >= (SELECT max("offset") FROM job_log_chunks
            WHERE job_id = jobs.id AND stream = ${stream} AND "offset" <= ${offset}::bigint)
        ORDER BY "offset" LIMIT ${CHUNKS_READ}) AS chunks ON true
      WHERE jobs.id = ${jobId}::uuid ORDER BY start`;
    const [first] = rows;
    const parts = rows.flatMap(({ start, data }) => {
      if (start === null || data === null) return [];
      const from = Math.max(0, offset - Number(start));
      return [Buffer.from(data).subarray(from, offset + maxBytes - Number(start))];
    });
    return {
      data: Buffer.concat(parts),
      size: Number(first?.size ?? 0),
      dropped: Number(first?.dropped ?? 0),
      closed: first?.closed ?? false,
      piece: first?.piece ?? undefined,
    };
  }

  /** The last `maxBytes` of a stream, begun at a whole character where the bytes are text; `offset` is where it starts. */
  async tail(jobId: string, stream: LogStream, maxBytes: number): Promise<LogSlice & { offset: number }> {
    const { size } = await this.read(jobId, stream, 0, 0);
    const from = Math.max(0, size - maxBytes);
    const slice = await this.read(jobId, stream, from, maxBytes);
    let skip = 0;
    while (from > 0 && skip < 3 && (slice.data[skip] ?? 0) >> 6 === 0b10) skip++;
    return { ...slice, data: slice.data.subarray(skip), offset: from + skip };
  }
}
