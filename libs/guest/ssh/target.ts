import { createHash } from 'node:crypto';
import { AppError } from '@longhaul/errors';
import ssh2 from 'ssh2';

/** A machine that is reached by SSH, and who to be there: root, or somebody for whom `sudo -n` works without a password. */
export interface SshTarget {
  host: string;
  port: number;
  user: string;
  /** The only key that the machine may have: `SHA256:…` as ssh-keygen prints it, or a whole one, `ssh-ed25519 AAAA…`. */
  hostKey: string;
  /** In any format of OpenSSH, without a passphrase. This or the password. */
  privateKey?: string;
  password?: string;
}

const FINGERPRINT = /^SHA256:[A-Za-z0-9+/]{43}$/;
const ALGORITHMS = {
  'ssh-ed25519': ['ssh-ed25519'],
  'ecdsa-sha2-nistp256': ['ecdsa-sha2-nistp256'],
  'ecdsa-sha2-nistp384': ['ecdsa-sha2-nistp384'],
  'ecdsa-sha2-nistp521': ['ecdsa-sha2-nistp521'],
  'ssh-rsa': ['rsa-sha2-512', 'rsa-sha2-256'],
} as const;

export type HostKeyAlgorithm = (typeof ALGORITHMS)[keyof typeof ALGORITHMS][number];

/** A pinned key: what its fingerprint is, and by which algorithms the machine has to prove it (any, when only the fingerprint is known). */
export interface PinnedKey {
  fingerprint: string;
  algorithms: readonly HostKeyAlgorithm[];
}

/** Errors: `invalid_arguments` for what is neither a fingerprint nor a key. */
export function parseHostKey(text: string): PinnedKey {
  if (FINGERPRINT.test(text)) return { fingerprint: text, algorithms: Object.values(ALGORITHMS).flat() };
  const [type = '', blob = ''] = text.trim().split(/\s+/);
  const key = Buffer.from(blob, 'base64');
  if (!Object.hasOwn(ALGORITHMS, type) || typeOf(key) !== type)
    throw new AppError('invalid_arguments', 'The host key is neither "SHA256:…" nor a public key of SSH.');
  return { fingerprint: fingerprintOf(key), algorithms: ALGORITHMS[type as keyof typeof ALGORITHMS] };
}

export const fingerprintOf = (key: Buffer) =>
  `SHA256:${createHash('sha256').update(key).digest('base64').replace(/=+$/, '')}`;

/** The key as a line of authorized_keys or known_hosts has it. */
export const hostKeyText = (key: Buffer) => `${typeOf(key)} ${key.toString('base64')}`;

/** Errors: `invalid_arguments` for what is no private key, or one with a passphrase. */
export function checkPrivateKey(text: string): void {
  const parsed = ssh2.utils.parseKey(text);
  const key = Array.isArray(parsed) ? parsed[0] : parsed;
  if (key instanceof Error) {
    const advice = /passphrase|encrypted/i.test(key.message) ? ' It must have no passphrase.' : '';
    throw new AppError('invalid_arguments', `This is no private key for SSH.${advice}`);
  }
  if (!key?.isPrivateKey())
    throw new AppError('invalid_arguments', 'This is a public key; the private one is needed.');
}

/** A key begins with the name of its type, after four bytes of length. */
function typeOf(key: Buffer): string {
  return key.length < 4 ? '' : key.toString('latin1', 4, 4 + Math.min(key.readUInt32BE(0), 100));
}
