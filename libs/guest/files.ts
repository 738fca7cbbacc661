import { AppError, type ErrorCode } from '@longhaul/errors';
import type { GuestSession } from './channel.js';
import { LIST, PATH_EXIT, READ } from './files-script.js';

export const READ_MAX_BYTES = 512 * 1024;
export const LIST_MAX_ENTRIES = 200;
/** A program of these reads little; a network file system that hangs is not waited for. */
const TIMEOUT_MS = 10_000;
/** What dd reads at a time. */
const BLOCK = 4_096;
/** Of the facts of a list's entries; what one entry needs is far less, and a program may print 1 MiB. */
const LIST_MAX_BYTES = 700_000;

export interface GuestFileSlice {
  data: Buffer;
  /** Of the whole file. */
  sizeBytes: number;
  modifiedAt: Date;
}

export interface GuestFileEntry {
  /** Any bytes but NUL and slash. */
  name: Buffer;
  type: 'file' | 'directory' | 'symlink' | 'fifo' | 'socket' | 'device' | 'other';
  sizeBytes: number;
  /** Octal, such as `644` or `4755`. */
  mode: string;
  /** `user:group`; numbers where the guest knows no name. */
  owner: string;
  modifiedAt: Date;
  /** Of a symlink: what it says, any bytes. */
  target?: Buffer;
}

export interface GuestDirectorySlice {
  /** By the bytes of their names. */
  entries: GuestFileEntry[];
  /** Where to go on: the name after which more may follow. */
  next?: Buffer;
}

const SAID: Record<number, [ErrorCode, string]> = {
  [PATH_EXIT.denied]: [
    'path_denied',
    'Longhaul does not show this path: it holds secrets or is no usual file.',
  ],
  [PATH_EXIT.notFound]: ['path_not_found', 'There is nothing at this path in the VM.'],
  [PATH_EXIT.isDirectory]: ['path_is_directory', 'This path is a directory.'],
  [PATH_EXIT.notADirectory]: ['path_not_a_directory', 'This path is no directory.'],
  [PATH_EXIT.notAFile]: ['path_not_a_file', 'This path is a device, a pipe or a socket.'],
};

/**
 * At most `maxBytes` (up to 512 KiB) of a regular file from `offset` on; empty behind its end. Follows symlinks; never waits
 * for a pipe or a device. `path` is absolute and has no NUL.
 * Errors: `path_not_found`, `path_is_directory`, `path_not_a_file`, `path_denied` (docs/files.md), `guest_missing_dependency`;
 * those of the session.
 */
export async function readGuestFile(
  guest: GuestSession,
  path: string,
  offset: number,
  maxBytes: number,
): Promise<GuestFileSlice> {
  if (!(maxBytes >= 1 && maxBytes <= READ_MAX_BYTES))
    throw new Error(`Cannot read ${maxBytes} bytes at once`);
  const before = offset % BLOCK;
  const blocks = Math.ceil((before + maxBytes) / BLOCK);
  const out = await runIn(guest, READ, [path, (offset - before) / BLOCK, blocks]);
  const end = out.indexOf('\n');
  const [, size, modified] = /^(\d{1,15}) (-?\d{1,12})$/.exec(out.toString('latin1', 0, end)) ?? nonsense();
  return {
    data: out.subarray(end + 1 + before, end + 1 + before + maxBytes),
    sizeBytes: Number(size),
    modifiedAt: new Date(Number(modified) * 1000),
  };
}

/**
 * At most `limit` (up to 200) entries of a directory that come after the name `after`, without `.` and `..`. `path` is
 * absolute and has no NUL. Errors: `path_not_found`, `path_not_a_directory`, and as for readGuestFile.
 */
export async function listGuestDirectory(
  guest: GuestSession,
  path: string,
  after: Buffer | undefined,
  limit: number,
): Promise<GuestDirectorySlice> {
  if (!(limit >= 1 && limit <= LIST_MAX_ENTRIES)) throw new Error(`Cannot list ${limit} entries at once`);
  const octal = [...(after ?? [])].map((byte) => ` ${byte.toString(8).padStart(3, '0')}`).join('');
  const out = await runIn(guest, LIST, [path, octal, limit + 1, LIST_MAX_BYTES]);
  const end = out.indexOf('\n\n');
  if (end < 0) nonsense();
  const names = out
    .toString('latin1', 0, end)
    .split('\n')
    .filter(Boolean)
    .map((line) =>
      Buffer.from(
        line
          .split(' ')
          .filter(Boolean)
          .map((digits) => parseInt(digits, 8)),
      ),
    );
  const facts = out.subarray(end + 2);

  const entries: GuestFileEntry[] = [];
  let at = 0;
  for (const name of names.slice(0, limit)) {
    const found = entryAt(facts, at, name);
    // Gone since it was listed.
    if (!found) continue;
    entries.push(found.entry);
    at = found.end;
  }
  const isCut = facts.length >= LIST_MAX_BYTES;
  const last = isCut ? entries.at(-1)?.name : names[limit - 1];
  return { entries, next: isCut || names.length > limit ? last : undefined };
}

/** The facts that stat printed at `at`, when they are those of `name`: coreutils prints names bare, busybox in quotes. */
function entryAt(
  facts: Buffer,
  at: number,
  name: Buffer,
): { entry: GuestFileEntry; end: number } | undefined {
  const head =
    /^([0-9a-f]{1,8}) (\d{1,15}) (\d{1,10}) (\d{1,10}) (-?\d{1,12}) ([^/\n]{0,64})\/([^/\n]{0,64})\/('?)\.\//.exec(
      facts.toString('latin1', at, at + 256),
    );
  if (!head) return undefined;
  const [matched, rawMode = '', size, uid, gid, modified, user, group, quote = ''] = head;
  const nameEnd = at + matched.length + name.length + quote.length;
  const shown = Buffer.concat([name, Buffer.from(quote)]);
  if (!facts.subarray(at + matched.length, nameEnd).equals(shown)) return undefined;

  const mode = parseInt(rawMode, 16);
  const type = TYPES[mode >> 12] ?? 'other';
  const arrow = ` -> ${quote}`;
  const isShown = facts.toString('latin1', nameEnd, nameEnd + arrow.length) === arrow;
  const targetStart = nameEnd + arrow.length;
  // The size of a symlink is the length of what it says, which may have line ends in it.
  const targetEnd = targetStart + Number(size);
  const end = type === 'symlink' && isShown ? targetEnd + quote.length : nameEnd;
  if (facts[end] !== 0x0a) return undefined;
  const known = (text: string | undefined, id: string | undefined) =>
    text && text !== 'UNKNOWN' ? text : id;
  return {
    entry: {
      name,
      type,
      sizeBytes: Number(size),
      mode: (mode & 0o7777).toString(8),
      owner: Buffer.from(`${known(user, uid)}:${known(group, gid)}`, 'latin1').toString(),
      modifiedAt: new Date(Number(modified) * 1000),
      ...(end > nameEnd && { target: facts.subarray(targetStart, targetEnd) }),
    },
    end: end + 1,
  };
}

/** By the upper bits of a file's mode, the same in every Linux. */
const TYPES: Record<number, GuestFileEntry['type']> = {
  0o01: 'fifo',
  0o02: 'device',
  0o04: 'directory',
  0o06: 'device',
  0o10: 'file',
  0o12: 'symlink',
  0o14: 'socket',
};

async function runIn(guest: GuestSession, program: string, args: (string | number)[]): Promise<Buffer> {
  const result = await guest.run(
    { path: 'sh', args: ['-c', program, 'longhaul', ...args.map(String)] },
    TIMEOUT_MS,
  );
  if (result.exitCode === 0) return result.stdout;
  const [code, message] = SAID[result.exitCode] ?? [];
  if (code) throw new AppError(code, message!);
  const what = result.stderr
    .toString()
    .slice(0, 200)
    .replace(/[\x00-\x1f\x7f]+/g, ' ')
    .trim();
  if (result.exitCode === 127)
    throw new AppError('guest_missing_dependency', `The VM lacks a program: ${what}`);
  throw new AppError(
    'guest_unreachable',
    `The VM could not read it: ${what || `exit code ${result.exitCode}`}`,
  );
}

function nonsense(): never {
  throw new AppError('guest_unreachable', 'The VM answered nonsense about a file.');
}
