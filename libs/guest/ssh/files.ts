import { promisify } from 'node:util';
import { AppError } from '@longhaul/errors';
import type { SFTPWrapper } from 'ssh2';
import { printable } from '../agent/answers.js';

const NO_SUCH_FILE = 2;
const FAILURE = 4;
/** Servers answer at most 256 KiB a time. */
const CHUNK = 128 * 1024;

/**
 * At most `maxBytes` from `offset`, by SFTP: many times faster than a shell for each file. Undefined when the file does not
 * exist, or is that of a process that ended.
 */
export async function readBySftp(
  sftp: SFTPWrapper,
  path: string,
  offset: number,
  maxBytes: number,
): Promise<Buffer | undefined> {
  try {
    const handle = await promisify(sftp.open.bind(sftp))(path, 'r');
    try {
      return await readOn(sftp, handle, offset, maxBytes);
    } finally {
      sftp.close(handle, () => {});
    }
  } catch (error) {
    const { code, message } = error as { code?: number; message: string };
    if (code === NO_SUCH_FILE || (code === FAILURE && path.startsWith('/proc/'))) return undefined;
    throw new AppError(
      'guest_unreachable',
      `The VM, by SSH: a file could not be read: ${printable(message)}`,
    );
  }
}

async function readOn(sftp: SFTPWrapper, handle: Buffer, offset: number, maxBytes: number): Promise<Buffer> {
  const parts: Buffer[] = [];
  for (let got = 0; got < maxBytes;) {
    const size = Math.min(CHUNK, maxBytes - got);
    const chunk = await new Promise<Buffer>((resolve, reject) => {
      const buffer = Buffer.alloc(size);
      sftp.read(handle, buffer, 0, size, offset + got, (error, bytes) =>
        error ? reject(error) : resolve(buffer.subarray(0, bytes)),
      );
    });
    if (chunk.length === 0) break;
    parts.push(chunk);
    got += chunk.length;
  }
  return Buffer.concat(parts);
}
