import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { ConfigError } from '@longhaul/config';

/** `id:key`; 32 bytes take 43 digits of base64. */
export const KEY_PATTERN = '[a-z0-9-]{1,32}:[A-Za-z0-9+/]{43}=';

const LINE = new RegExp(`^${KEY_PATTERN}$`);

/** Master keys by their ids; the first one seals. */
export type Keyring = ReadonlyMap<string, Buffer>;

/** Errors: ConfigError, which never repeats what it has read. */
export function parseKeys(lines: string[], source: string): Keyring {
  const entries = lines.map((line, index) => {
    if (!LINE.test(line))
      throw new ConfigError(`${source}: entry ${index + 1} is not id:key with 32 bytes in base64.`);
    const [id, key] = line.split(':') as [string, string];
    return [id, Buffer.from(key, 'base64')] as const;
  });
  const keys = new Map(entries);
  if (keys.size === 0) throw new ConfigError(`${source} holds no key.`);
  if (keys.size < entries.length) throw new ConfigError(`${source} holds two keys of one id.`);
  return keys;
}

export function readKeyFile(path: string): Keyring {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new ConfigError(`SECRETS_KEY_FILE cannot be read: ${(error as Error).message}`);
  }
  const lines = text.split('\n').map((line) => line.trim());
  return parseKeys(lines.filter(Boolean), path);
}

/** Puts a new key first, which makes it the one that seals; answers its id. The file is made when missing, for its owner only. */
export function addKey(path: string): string {
  const id = `${new Date().toISOString().slice(0, 10)}-${randomBytes(3).toString('hex')}`;
  const earlier = existsSync(path) ? readFileSync(path, 'utf8') : '';
  const beside = `${path}.new`;
  writeFileSync(beside, `${id}:${randomBytes(32).toString('base64')}\n${earlier}`, {
    mode: 0o600,
    flush: true,
  });
  // The mode counts for a new file only.
  chmodSync(beside, 0o600);
  renameSync(beside, path);
  return id;
}

/** The file with a first key in it where it is missing. Of several processes that start at once, one makes it for all. */
export function ensureKeyFile(path: string): string {
  if (existsSync(path)) return path;
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const own = `${path}.${process.pid}`;
  addKey(own);
  try {
    linkSync(own, path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  } finally {
    rmSync(own);
  }
  return path;
}
