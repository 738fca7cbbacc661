import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { open, rename, rm, stat } from 'node:fs/promises';
import { Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { AppError } from '@longhaul/errors';

export interface DownloadOptions {
  url: string;
  /** In lower-case hex. */
  sha512: string;
  /** Default 20 GiB. */
  maxBytes?: number;
  /** How long a server may stay silent, milliseconds. Default a minute. */
  silenceMs?: number;
  /** Gets a line for each try. */
  onProgress?: (line: string) => void;
}

/** Tries in a row that bring not one byte. */
const TRIES = 4;
const PAUSE_MS = 1_000;

/** The server's answer is final: another try would bring the same. */
class Refusal extends Error {}

/**
 * Fetches a file and puts it at `target` once its digest is right. What was fetched is kept beside it as `<target>.part`: a
 * cut connection, and a call after a crash, go on from there. One call at a time for one target.
 * Errors: `unavailable`, when the server does not give it or gives something else.
 */
export async function download(target: string, options: DownloadOptions): Promise<void> {
  const part = `${target}.part`;
  const from = await sizeOf(part);
  await fetchAll(part, options);
  let digest = await digestOf(part);
  if (digest !== options.sha512 && from > 0) {
    // The beginning was of an older file at that address, perhaps.
    options.onProgress?.('The digest is wrong: fetching all of it again');
    await rm(part);
    await fetchAll(part, options);
    digest = await digestOf(part);
  }
  if (digest !== options.sha512) {
    await rm(part);
    throw failure(options, `its SHA-512 is ${digest}, not ${options.sha512}`);
  }
  const handle = await open(part, 'r');
  await handle.sync().finally(() => handle.close());
  await rename(part, target);
}

async function fetchAll(part: string, options: DownloadOptions): Promise<void> {
  let reason = '';
  for (let tries = 0; tries < TRIES; tries++) {
    const before = await sizeOf(part);
    if (tries > 0) await sleep(PAUSE_MS);
    options.onProgress?.(`Fetching ${options.url}${before > 0 ? ` from byte ${before} on` : ''}`);
    try {
      return await fetchRest(part, before, options);
    } catch (error) {
      if (error instanceof Refusal) throw failure(options, error.message);
      reason = describe(error);
    }
    if ((await sizeOf(part)) > before) tries = 0;
  }
  throw failure(options, reason);
}

/** One request for what is missing, appended to the part; rejects when not all of it comes. */
async function fetchRest(part: string, offset: number, options: DownloadOptions): Promise<void> {
  const { url, maxBytes = 20 * 2 ** 30, silenceMs = 60_000 } = options;
  const silence = new AbortController();
  const timer = setTimeout(() => silence.abort(new Error(`silent for ${silenceMs} ms`)), silenceMs);
  try {
    // Compressed on the way, offsets would be of something else.
    const headers = { 'accept-encoding': 'identity', ...(offset > 0 && { range: `bytes=${offset}-` }) };
    const response = await fetch(url, { headers, signal: silence.signal });
    const start = response.status === 206 ? startOf(response) : 0;
    // All of it is there already, or more than all: only the digest can tell.
    if (response.status === 416 && offset > 0) return;
    if (response.status >= 400 && response.status < 500 && ![408, 425, 429].includes(response.status))
      throw new Refusal(`the server answers ${response.status}`);
    if (!response.ok || !response.body) throw new Error(`the server answers ${response.status}`);
    if (start !== 0 && start !== offset)
      throw new Refusal('the server sends another range than it was asked for');
    let size = start;
    const watch = new Transform({
      transform(chunk: Buffer, _encoding, done) {
        timer.refresh();
        size += chunk.length;
        done(size > maxBytes ? new Refusal(`it has more than ${maxBytes} bytes`) : null, chunk);
      },
    });
    const sink = createWriteStream(part, start > 0 ? { flags: 'a' } : { flags: 'w' });
    await pipeline(Readable.fromWeb(response.body), watch, sink);
  } finally {
    clearTimeout(timer);
    // Of an answer that was not read to its end, the connection goes too.
    silence.abort();
  }
}

const startOf = (response: Response) =>
  Number(/^bytes (\d+)-/.exec(response.headers.get('content-range') ?? '')?.[1] ?? NaN);

const sizeOf = (path: string) =>
  stat(path).then(
    ({ size }) => size,
    () => 0,
  );

async function digestOf(path: string): Promise<string> {
  const hash = createHash('sha512');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}

/** What `fetch` throws says only in its cause what happened. */
function describe(error: unknown): string {
  const { message, cause } = error as Error;
  return cause instanceof Error ? cause.message || message : message;
}

const failure = ({ url }: DownloadOptions, reason: string) =>
  new AppError('unavailable', `The image at ${new URL(url).host} cannot be used: ${reason}.`);
