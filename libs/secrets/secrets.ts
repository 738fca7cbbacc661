import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { Inject, Injectable } from '@nestjs/common';
import { CONFIG } from '@longhaul/config';
import type { z } from 'zod';
import type { secretsConfig } from './config.js';
import { ensureKeyFile, parseKeys, readKeyFile, type Keyring } from './keyring.js';

const CIPHER = 'aes-256-gcm';
const KEY_BYTES = 32;
const IV_BYTES = 12;
const TAG_BYTES = 16;
const WRAPPED_BYTES = IV_BYTES + TAG_BYTES + KEY_BYTES;
const SEALED = /^v1\.([a-z0-9-]{1,32})\.([\w-]+)$/;

/**
 * Encrypts what is stored and must be read back: each secret under a random key of its own, and that one under a master key from
 * the configuration, whose id stands in the result. So a rotation of master keys touches no secret.
 */
@Injectable()
export class Secrets {
  private keys: Keyring;
  private readonly file?: string;
  private version = '';

  /** Errors: ConfigError without a usable master key. */
  constructor(
    @Inject(CONFIG)
    { SECRETS_KEYS, SECRETS_KEY_FILE, LONGHAUL_HOME = '.longhaul' }: z.input<typeof secretsConfig>,
  ) {
    if (SECRETS_KEYS !== undefined) {
      this.keys = parseKeys(SECRETS_KEYS.split(','), 'SECRETS_KEYS');
      return;
    }
    // A file that somebody has named must be there: a new key would open nothing.
    this.file = SECRETS_KEY_FILE ?? ensureKeyFile(join(LONGHAUL_HOME, 'secrets.key'));
    this.keys = readKeyFile(this.file);
  }

  /** Text of `v1.`, the master key's id, a dot, base64url. Only who gives the same `context` opens it: say where it is stored. */
  seal(plain: Buffer, context: string): string {
    const key = randomBytes(KEY_BYTES);
    return this.envelope(key, encrypt(key, plain, context), context);
  }

  /** Throws for what was changed, belongs elsewhere, or was sealed with a master key that is not here. */
  open(sealed: string, context: string): Buffer {
    const { key, body } = this.unwrap(sealed, context);
    return decrypt(key, body, context);
  }

  /** The same secret under the present master key; undefined when it is already. */
  rewrap(sealed: string, context: string): string | undefined {
    if (sealed.startsWith(`v1.${this.current()[0]}.`)) return undefined;
    const { key, body } = this.unwrap(sealed, context);
    return this.envelope(key, body, context);
  }

  private envelope(key: Buffer, body: Buffer, context: string): string {
    const [id, master] = this.current();
    const wrapped = encrypt(master, key, `${id} ${context}`);
    return `v1.${id}.${Buffer.concat([wrapped, body]).toString('base64url')}`;
  }

  private unwrap(sealed: string, context: string): { key: Buffer; body: Buffer } {
    const [, id = '', text = ''] = SEALED.exec(sealed) ?? [];
    const bytes = Buffer.from(text, 'base64url');
    const key = decrypt(this.master(id), bytes.subarray(0, WRAPPED_BYTES), `${id} ${context}`);
    return { key, body: bytes.subarray(WRAPPED_BYTES) };
  }

  private current(): [string, Buffer] {
    this.refresh();
    return this.keys.entries().next().value!;
  }

  private master(id: string): Buffer {
    if (!this.keys.has(id)) this.refresh();
    const key = this.keys.get(id);
    if (!key) throw new Error(`there is no master key ${id || '(unreadable)'} here`);
    return key;
  }

  /** Another process may have rotated the keys, by a new file in place of the one that was read. */
  private refresh(): void {
    if (this.file === undefined) return;
    const now = statSync(this.file, { throwIfNoEntry: false });
    const version = now && `${now.ino} ${now.mtimeMs}`;
    if (!version || version === this.version) return;
    this.keys = readKeyFile(this.file);
    this.version = version;
  }
}

/** IV, tag, then the ciphertext. */
function encrypt(key: Buffer, plain: Buffer, context: string): Buffer {
  const iv = randomBytes(IV_BYTES);
  const cipher = createCipheriv(CIPHER, key, iv, { authTagLength: TAG_BYTES }).setAAD(Buffer.from(context));
  const text = Buffer.concat([cipher.update(plain), cipher.final()]);
  return Buffer.concat([iv, cipher.getAuthTag(), text]);
}

function decrypt(key: Buffer, bytes: Buffer, context: string): Buffer {
  const iv = bytes.subarray(0, IV_BYTES);
  const tag = bytes.subarray(IV_BYTES, IV_BYTES + TAG_BYTES);
  const decipher = createDecipheriv(CIPHER, key, iv, { authTagLength: TAG_BYTES });
  decipher.setAAD(Buffer.from(context)).setAuthTag(tag);
  return Buffer.concat([decipher.update(bytes.subarray(IV_BYTES + TAG_BYTES)), decipher.final()]);
}
