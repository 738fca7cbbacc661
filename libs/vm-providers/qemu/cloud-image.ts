import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { copyFile, mkdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { AppError } from '@longhaul/errors';
import { withLock } from '@longhaul/guest';
import { download, type ImageSource } from '@longhaul/images';
import { hash } from './hash.js';
import { run } from './programs.js';
import { exists } from './vm-files.js';

export type CloudSource = Exclude<ImageSource, { recipe: string }>;

const FETCH_MS = 4 * 3_600_000;
const CONVERT_MS = 30 * 60_000;

interface DiskInfo {
  format: string;
  'backing-filename'?: string;
  'format-specific'?: { data?: { 'data-file'?: string } };
}

/** Folder name of a cloud image: another one when the file is another one. */
export async function nameOfCloudImage(source: CloudSource): Promise<string> {
  if (source.sha512) return `cloud-${source.sha512.slice(0, 16)}`;
  if ('url' in source) throw new Error('unreachable: an address has a digest');
  const { size, mtimeMs } = await stat(source.path).catch(() => {
    throw new AppError('unavailable', `The image ${source.path} is not on this host.`);
  });
  return `cloud-${hash(JSON.stringify([source.path, size, mtimeMs]))}`;
}

/**
 * Makes `folder` with root.qcow2 from a cloud image, unless it is there; it appears only when it is complete. Several
 * processes may do so at once: one works, the others wait. Errors: `unavailable`.
 */
export async function ensureCloudImage(
  folder: string,
  source: CloudSource,
  onProgress: (line: string) => void,
): Promise<void> {
  if (await exists(folder)) return;
  const lock = { directory: `${folder}.locks`, name: 'fetch', waitMs: FETCH_MS, holdMs: FETCH_MS };
  await withLock(lock, async () => {
    if (await exists(folder)) return;
    const fetched = `${folder}.fetched`;
    if ('path' in source) await verify(source);
    else if (!(await exists(fetched))) await download(fetched, { ...source, onProgress });
    const file = 'path' in source ? source.path : fetched;
    const work = `${folder}.building`;
    try {
      const format = await formatOf(file);
      await rm(work, { recursive: true, force: true });
      await mkdir(work, { mode: 0o755 });
      const disk = join(work, 'root.qcow2');
      onProgress(`Making the image's disk`);
      if (format === 'raw')
        await run(['qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', file, disk], CONVERT_MS);
      else if ('path' in source) await copyFile(file, disk);
      else await rename(file, disk);
      await run(['chmod', '444', disk]);
      await rename(work, folder);
    } finally {
      // Also of an image that is of no use: nobody would remove it later.
      for (const rest of [work, fetched]) await rm(rest, { recursive: true, force: true });
    }
  });
}

/** A disk that lies on other files would show them to the guest. */
async function formatOf(file: string): Promise<'qcow2' | 'raw'> {
  const told = await run(['qemu-img', 'info', '--output=json', file]).catch((error: unknown) => {
    throw new AppError('unavailable', 'The image cannot be read; it must be qcow2 or raw.', { cause: error });
  });
  const info = JSON.parse(told) as DiskInfo;
  if (info['backing-filename'] || info['format-specific']?.data?.['data-file'])
    throw new AppError('unavailable', 'The image lies on other files and cannot be used.');
  if (info.format === 'qcow2' || info.format === 'raw') return info.format;
  throw new AppError('unavailable', `The image is ${info.format}; it must be qcow2 or raw.`);
}

async function verify(source: { path: string; sha512?: string }): Promise<void> {
  const found = createHash('sha512');
  try {
    if (source.sha512) await pipeline(createReadStream(source.path), found);
    else await stat(source.path);
  } catch (error) {
    throw new AppError('unavailable', `The image ${source.path} cannot be read on this host.`, {
      cause: error,
    });
  }
  if (source.sha512 && found.digest('hex') !== source.sha512)
    throw new AppError('unavailable', `The image ${source.path} does not have the digest of the catalogue.`);
}
