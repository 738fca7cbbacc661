import { createHash } from 'node:crypto';
import { promisify } from 'node:util';
import { deflate, inflate } from 'node:zlib';
import { Injectable } from '@nestjs/common';
import { LogStore } from '@longhaul/artifacts';
import { AppError } from '@longhaul/errors';
import { Database, newId } from '@longhaul/persistence';
import { createLogger } from '@longhaul/telemetry';
import type { LogStream } from './job-log.js';

const compress = promisify(deflate);
const decompress = promisify(inflate);

/** Bytes of the stream that are compressed for themselves: a read anywhere decompresses what it asks for and two of these at most. */
const FRAME_BYTES = 64 * 1024;
/** What one object holds of a stream at least, unless the stream ends. It is made in memory. */
const PIECE_BYTES = 16 * 1024 * 1024;
/** What is read from the database at once. */
const PAGE_BYTES = 1024 * 1024;
/** A shorter stream stays where it is: an object costs more than its chunk. */
const LEAST_BYTES = 16 * 1024;
/** How long a reader waits for the store. */
const READ_MS = 10_000;
/** Jobs that one statement looks for. */
const BATCH = 100;
/** An object that is younger may be one whose row is not written yet. */
const ORPHAN_MS = 2 * 3_600_000;

/** A row of `job_log_archives`, as JSON. */
export interface ArchivedPiece {
  id: string;
  offset: number;
  size: number;
  frames: number[];
}

/**
 * Where the output of jobs goes once they have ended: from chunks in the database to compressed objects in the store, piece by
 * piece. Each byte is in one of the two at any moment (docs/adr/0014).
 */
@Injectable()
export class LogArchive {
  private readonly log = createLogger('log-archive');

  constructor(
    private readonly db: Database,
    private readonly store: LogStore,
  ) {}

  /**
   * At most `maxBytes` of the stream from `offset`, which is in the piece; no bytes beyond the piece. Errors: `unavailable`,
   * `log_damaged`.
   */
  async read(piece: ArchivedPiece, offset: number, maxBytes: number): Promise<Buffer> {
    const from = offset - piece.offset;
    const to = Math.min(from + maxBytes, piece.size);
    const first = Math.floor(from / FRAME_BYTES);
    const last = Math.floor((to - 1) / FRAME_BYTES);
    const starts = [0, ...piece.frames];
    const packed = await this.fetch(piece.id, starts[first]!, starts[last + 1]!);
    const frames: Buffer[] = [];
    for (let frame = first; frame <= last; frame++) {
      const bytes = packed.subarray(starts[frame]! - starts[first]!, starts[frame + 1]! - starts[first]!);
      frames.push(await unpack(piece, frame, bytes));
    }
    return Buffer.concat(frames).subarray(from - first * FRAME_BYTES, to - first * FRAME_BYTES);
  }

  /**
   * Archives the logs of jobs that ended `hours` ago or earlier, those that ended first before others. A log that cannot be is
   * passed over, to be tried again the next time. Answers how many bytes of streams were moved. Rejects when the store is
   * away, and with the reason of `stop`. Several at once do no harm.
   */
  async sweep(hours: number, stop: AbortSignal): Promise<number> {
    await this.store.check(AbortSignal.any([stop, AbortSignal.timeout(READ_MS)]));
    let moved = 0;
    for (let after: Ended | undefined, found = BATCH; found === BATCH;) {
      const ended = await this.endedBefore(hours, after);
      const done: string[] = [];
      for (const { id, streams } of ended) {
        try {
          for (const stream of streams) moved += await this.archive(id, stream, stop);
          done.push(id);
        } catch (error) {
          if (stop.aborted || (error instanceof AppError && error.code === 'unavailable')) throw error;
          this.log.error({ err: error, jobId: id }, 'log not archived');
        }
      }
      await this.db.$executeRaw`UPDATE jobs SET archived_at = now() WHERE id = ANY(${done}::uuid[])`;
      after = ended.at(-1);
      found = ended.length;
    }
    return moved;
  }

  /** Deletes objects whose job is gone, and those of archiving that broke off. Answers how many. */
  async collect(stop: AbortSignal): Promise<number> {
    const known = async (ids: string[]) => {
      const rows = await this.db.jobLogArchive.findMany({ where: { id: { in: ids } }, select: { id: true } });
      return new Set(rows.map(({ id }) => id));
    };
    return this.store.collect(await this.db.now(-ORPHAN_MS), known, stop);
  }

  /** Deletes pieces whose rows are gone. */
  async forget(pieces: string[]): Promise<void> {
    for (const id of pieces) await this.store.delete(id);
  }

  private endedBefore(hours: number, after?: Ended): Promise<Ended[]> {
    return this.db.$queryRaw<Ended[]>`
      SELECT id, finished_at AS "finishedAt", ARRAY(SELECT stream FROM job_log_streams
        WHERE job_id = jobs.id AND size >= ${LEAST_BYTES} AND archived < size ORDER BY stream) AS streams
      FROM jobs WHERE archived_at IS NULL AND finished_at < now() - ${hours} * interval '1 hour'
        AND (finished_at, id) > (${after?.finishedAt ?? new Date(0)}::timestamptz, ${after?.id ?? '00000000-0000-0000-0000-000000000000'}::uuid)
      ORDER BY finished_at, id LIMIT ${BATCH}`;
  }

  /** All that is left of the stream. Answers how many bytes it were. */
  private async archive(jobId: string, stream: LogStream, stop: AbortSignal): Promise<number> {
    for (let moved = 0; ;) {
      stop.throwIfAborted();
      const key = { jobId_stream: { jobId, stream } };
      const row = await this.db.jobLogStream.findUnique({ where: key });
      if (!row || row.archived === row.size) return moved;
      moved += await this.archivePiece(jobId, stream, Number(row.archived), stop);
    }
  }

  /** First the object, as a reader will read it, then its row in place of the chunks. What fails in between is an orphan. */
  private async archivePiece(
    jobId: string,
    stream: LogStream,
    start: number,
    stop: AbortSignal,
  ): Promise<number> {
    const { packed, digest, ...rest } = await this.pack(jobId, stream, start, stop);
    const piece: ArchivedPiece = { id: newId(), offset: start, ...rest };
    const { id, size, frames } = piece;
    const isMine = await this.keep(id, packed).then(async () => {
      if (!(await this.digest(piece)).equals(digest)) throw damaged(id);
      return this.db.$transaction(async (tx) => {
        const grown = await tx.jobLogStream.updateMany({
          where: { jobId, stream, archived: BigInt(start) },
          data: { archived: BigInt(start + size) },
        });
        if (grown.count === 0) return false;
        await tx.jobLogArchive.create({ data: { id, jobId, stream, offset: BigInt(start), size, frames } });
        await tx.jobLogChunk.deleteMany({
          where: { jobId, stream, offset: { gte: start, lt: start + size } },
        });
        return true;
      });
    });
    if (isMine) return size;
    // Somebody else was faster, or the job has been deleted.
    await this.store.delete(id);
    return 0;
  }

  /** The next piece of the stream, compressed; `digest` is of its own bytes. */
  private async pack(jobId: string, stream: LogStream, start: number, stop: AbortSignal) {
    const parts: Buffer[] = [];
    const frames: number[] = [];
    const hash = createHash('sha256');
    let end = 0;
    const add = async (frame: Buffer) => {
      const part = await compress(frame);
      parts.push(part);
      frames.push((end += part.length));
    };
    let size = 0;
    let rest = Buffer.alloc(0);
    while (size < PIECE_BYTES) {
      stop.throwIfAborted();
      const page = await this.page(jobId, stream, start + size);
      if (!page) break;
      hash.update(page);
      size += page.length;
      rest = Buffer.concat([rest, page]);
      for (; rest.length >= FRAME_BYTES; rest = rest.subarray(FRAME_BYTES))
        await add(rest.subarray(0, FRAME_BYTES));
    }
    if (rest.length > 0) await add(rest);
    return { packed: Buffer.concat(parts), digest: hash.digest(), size, frames };
  }

  /** The bytes of the chunks that begin in the next MiB; undefined at the end. */
  private async page(jobId: string, stream: LogStream, start: number): Promise<Buffer | undefined> {
    const [page] = await this.db.$queryRaw<
      { start: bigint | null; end: bigint; data: Uint8Array; size: bigint }[]
    >`
      SELECT min("offset") AS start, max("offset" + length(data)) AS end, string_agg(data, ''::bytea ORDER BY "offset") AS data,
        (SELECT size FROM job_log_streams WHERE job_id = ${jobId}::uuid AND stream = ${stream}) AS size
      FROM job_log_chunks WHERE job_id = ${jobId}::uuid AND stream = ${stream}
        AND "offset" >= ${start}::bigint AND "offset" < ${start}::bigint + ${PAGE_BYTES}::bigint`;
    const { start: first, end, data, size } = page!;
    if (first === null && BigInt(start) === size) return undefined;
    if (Number(first) !== start || Number(end) !== start + data.length)
      throw new Error(`chunks of ${stream} of job ${jobId} are missing from ${start}`);
    return Buffer.from(data);
  }

  private async digest(piece: ArchivedPiece): Promise<Buffer> {
    const hash = createHash('sha256');
    for (let at = 0; at < piece.size; at += PAGE_BYTES)
      hash.update(await this.read(piece, piece.offset + at, PAGE_BYTES));
    return hash.digest();
  }

  private keep(id: string, packed: Buffer): Promise<void> {
    return this.store.put(id, packed).catch((error: unknown) => {
      throw unavailable(error);
    });
  }

  private async fetch(id: string, start: number, end: number): Promise<Buffer> {
    const signal = AbortSignal.timeout(READ_MS);
    const parts: Buffer[] = [];
    let length = 0;
    try {
      const range = { offset: start, length: end - start };
      for await (const part of (await this.store.read(id, range, signal)) as AsyncIterable<Buffer>) {
        parts.push(part);
        // A store that ignores ranges would send all of it.
        if ((length += part.length) > end - start) break;
      }
    } catch (error) {
      if (error instanceof AppError) throw damaged(id, error);
      throw unavailable(error);
    }
    if (length !== end - start) throw damaged(id);
    return Buffer.concat(parts);
  }
}

interface Ended {
  id: string;
  finishedAt: Date;
  streams: LogStream[];
}

async function unpack({ id, size }: ArchivedPiece, frame: number, packed: Buffer): Promise<Buffer> {
  const length = Math.min(FRAME_BYTES, size - frame * FRAME_BYTES);
  const bytes = await decompress(packed, { maxOutputLength: length }).catch((error: unknown) => {
    throw damaged(id, error);
  });
  if (bytes.length !== length) throw damaged(id);
  return bytes;
}

const unavailable = (cause: unknown) =>
  new AppError('unavailable', 'The store of archived logs does not answer; try again.', undefined, { cause });

const damaged = (id: string, cause?: unknown) =>
  new AppError(
    'log_damaged',
    'This part of the log is missing or damaged in the store of archived logs.',
    { piece: id },
    { cause },
  );
