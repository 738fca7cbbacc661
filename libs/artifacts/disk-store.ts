import { createHash, type Hash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { access, constants, link, mkdir, open, opendir, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { AppError } from '@longhaul/errors';
import { newId, parseId } from '@longhaul/persistence';
import { CONTENT_TYPE, type ContentUrls } from './content-urls.js';
import { notUploaded, sizeMismatch, shaMismatch } from './failures.js';
import { ArtifactStore, type ByteRange, type Declared, type StoredBytes, type Upload } from './store.js';

/** Ids that are looked up together. */
const BATCH = 1000;
const PART = /\.part$/;
const NEW_FILE = { mode: 0o600, flush: true };

/** A file each, under its id. Clients upload to our API, which writes here. */
export class DiskStore extends ArtifactStore {
  constructor(
    private readonly directory: string,
    private readonly urls: ContentUrls,
    private readonly guestOrigin?: string,
  ) {
    super();
  }

  async check(): Promise<void> {
    await this.makeDirectory();
    await access(this.directory, constants.W_OK);
  }

  async uploadUrl(artifact: Declared): Promise<Upload> {
    const { origin } = this.urls;
    if (origin === undefined) throw new Error('the API does not listen yet');
    return {
      url: await this.urls.make('PUT', origin, artifact, artifact.uploadUntil),
      method: 'PUT',
      headers: { 'content-type': CONTENT_TYPE, 'content-length': String(artifact.sizeBytes) },
      expiresAt: artifact.uploadUntil,
    };
  }

  async downloadUrl(artifact: Declared, seconds: number, gateway?: string): Promise<string | undefined> {
    const origin = gateway ?? this.guestOrigin;
    return origin && this.urls.forDownload(origin, artifact, seconds);
  }

  /**
   * Stores the bytes of `body` when they are just those that were declared, else nothing. Memory does not grow with the size.
   * Errors: `artifact_size_mismatch` (what is too long is cut at once), `artifact_sha_mismatch`, `conflict` when there is something
   * already, `unavailable` without space; the reason of `signal`, and of a body that broke off.
   */
  async write(artifact: Declared, body: Readable, signal?: AbortSignal): Promise<void> {
    const hash = createHash('sha256');
    const checked = (source: AsyncIterable<Buffer>) => exactly(source, artifact, hash);
    await this.store(artifact.id, async (part) => {
      await pipeline(body, checked, createWriteStream(part, { flags: 'wx', ...NEW_FILE }), { signal });
      if (!hash.digest().equals(artifact.sha256)) throw shaMismatch();
    });
  }

  put(id: string, bytes: Buffer): Promise<void> {
    return this.store(id, (part) => writeFile(part, bytes, { flag: 'wx', ...NEW_FILE }));
  }

  /** What `fill` writes into a file of its own, once that is whole. */
  private async store(id: string, fill: (part: string) => Promise<void>): Promise<void> {
    await this.makeDirectory();
    const part = join(this.directory, `${id}.${newId()}.part`);
    try {
      await fill(part);
      // Unlike a rename it never replaces what another upload has completed.
      await link(part, this.path(id));
      await this.sync();
    } catch (thrown) {
      const { code } = thrown as NodeJS.ErrnoException;
      if (code === 'EEXIST') throw new AppError('conflict', 'This file has been uploaded already.');
      if (code === 'ENOSPC' || code === 'EDQUOT')
        throw new AppError('unavailable', 'There is no space for files.');
      throw thrown;
    } finally {
      await rm(part, { force: true });
    }
  }

  async read(id: string, range?: ByteRange, signal?: AbortSignal): Promise<Readable> {
    const handle = await open(this.path(id)).catch(absent);
    if (!handle) throw notUploaded();
    if (range?.length === 0) {
      await handle.close();
      return createReadStream('/dev/null');
    }
    const part = range && { start: range.offset, end: range.offset + range.length - 1 };
    return handle.createReadStream({ ...part, signal });
  }

  async stat(id: string): Promise<StoredBytes | undefined> {
    const found = await stat(this.path(id)).catch(absent);
    return found && { sizeBytes: found.size };
  }

  private makeDirectory() {
    return mkdir(this.directory, { recursive: true, mode: 0o700 });
  }

  async delete(id: string): Promise<void> {
    await rm(this.path(id), { force: true });
  }

  async collect(
    before: Date,
    known: (ids: string[]) => Promise<ReadonlySet<string>>,
    stop: AbortSignal,
  ): Promise<number> {
    let deleted = 0;
    for await (const names of this.oldNames(before, stop)) {
      const ids = names.filter((name) => !PART.test(name));
      const kept = await known(ids);
      const orphans = names.filter((name) => !kept.has(name));
      for (const name of orphans) await rm(join(this.directory, name), { force: true });
      deleted += orphans.length;
    }
    return deleted;
  }

  /** What is ours and was not touched since `before`, some at a time. */
  private async *oldNames(before: Date, stop: AbortSignal): AsyncGenerator<string[]> {
    const entries = await opendir(this.directory).catch(absent);
    let names: string[] = [];
    for await (const { name } of entries ?? []) {
      if (stop.aborted) return;
      if (!parseId(name.replace(/\..*$/, '')) || !(PART.test(name) || parseId(name))) continue;
      const found = await stat(join(this.directory, name)).catch(absent);
      if (found && found.mtime < before) names.push(name);
      if (names.length < BATCH) continue;
      yield names;
      names = [];
    }
    if (names.length > 0) yield names;
  }

  /** Ids come from rows and are checked all the same: a path must not leave the folder. */
  private path(id: string): string {
    const name = parseId(id);
    if (name === undefined) throw new Error('no id of an artifact');
    return join(this.directory, name);
  }

  private async sync(): Promise<void> {
    const directory = await open(this.directory);
    await directory.sync().finally(() => directory.close());
  }
}

async function* exactly(source: AsyncIterable<Buffer>, artifact: Declared, hash: Hash) {
  const expected = Number(artifact.sizeBytes);
  let seen = 0;
  for await (const chunk of source) {
    seen += chunk.length;
    if (seen > expected) throw sizeMismatch(expected);
    hash.update(chunk);
    yield chunk;
  }
  if (seen < expected) throw sizeMismatch(expected, seen);
}

function absent(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error;
}
