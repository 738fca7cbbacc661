import { createHash } from 'node:crypto';
import { AppError } from '@longhaul/errors';
import { z } from 'zod';

/** Longest line: RSA of 16,384 bits takes 2.8 kB. */
const MAX_LENGTH = 8192;

export interface PublicKey {
  /** Type, base64 and comment, as authorized_keys takes it. */
  line: string;
  /** As `ssh-keygen -l` shows it. */
  fingerprint: string;
}

const curve = (name: string, bytes: number): Form => [
  (field) => field.toString('latin1') === name,
  (field) => field.length === 2 * bytes + 1 && field[0] === 4,
];
const application = (field: Buffer) => field.length > 0 && field.length <= 256;
const isNumber = (field: Buffer) => field.length > 0 && field[0]! < 0x80;

/** What the fields after the type must be. */
type Form = ((field: Buffer) => boolean)[];
const FORMS: Record<string, Form> = {
  'ssh-ed25519': [(field) => field.length === 32],
  'ssh-rsa': [
    (exponent) => isNumber(exponent) && exponent.length <= 8 && exponent.at(-1)! % 2 === 1,
    (modulus) => isNumber(modulus) && isWithin(bitsOf(modulus), 2048, 16_384),
  ],
  'ecdsa-sha2-nistp256': curve('nistp256', 32),
  'ecdsa-sha2-nistp384': curve('nistp384', 48),
  'ecdsa-sha2-nistp521': curve('nistp521', 66),
  'sk-ssh-ed25519@openssh.com': [(field) => field.length === 32, application],
  'sk-ecdsa-sha2-nistp256@openssh.com': [...curve('nistp256', 32), application],
};

/** A public key as OpenSSH writes it into a .pub file, without options before it; undefined for anything else. */
export function parsePublicKey(text: string): PublicKey | undefined {
  if (text.length > MAX_LENGTH) return undefined;
  // A line break or another control character would add a line, or options, to authorized_keys.
  const [, type = '', body = '', comment = ''] =
    /^([a-z0-9@.-]+) ([A-Za-z0-9+/]+={0,2})(?: ([^\p{Cc}]{0,256}))?$/u.exec(text.trim()) ?? [];
  const form = Object.hasOwn(FORMS, type) ? FORMS[type] : undefined;
  const blob = Buffer.from(body, 'base64');
  if (!form || blob.toString('base64') !== body) return undefined;
  const [name, ...fields] = fieldsOf(blob) ?? [];
  if (name?.toString('latin1') !== type || fields.length !== form.length) return undefined;
  if (!form.every((isRight, index) => isRight(fields[index]!))) return undefined;
  const digest = createHash('sha256').update(blob).digest('base64').replace(/=+$/, '');
  return {
    line: [type, body, comment.trim()].filter(Boolean).join(' '),
    fingerprint: `SHA256:${digest}`,
  };
}

/** Each after its length; undefined when they do not fill the blob just so. */
function fieldsOf(blob: Buffer): Buffer[] | undefined {
  const fields: Buffer[] = [];
  for (let at = 0; at < blob.length;) {
    if (at + 4 > blob.length) return undefined;
    const end = at + 4 + blob.readUInt32BE(at);
    if (end > blob.length) return undefined;
    fields.push(blob.subarray(at + 4, end));
    at = end;
  }
  return fields;
}

const bitsOf = (number: Buffer) => BigInt(`0x${number.toString('hex')}`).toString(2).length;
const isWithin = (value: number, least: number, most: number) => value >= least && value <= most;

export const publicKey = z
  .string()
  .min(1)
  .max(MAX_LENGTH)
  .refine((text) => parsePublicKey(text) !== undefined, {
    error: 'expected one public key of OpenSSH: type, base64, comment (RSA of at least 2048 bits)',
    abort: true,
  });

export const sshKeyNotFound = () =>
  new AppError('ssh_key_not_found', 'You have no SSH key of that id. list_ssh_keys shows yours.');
