import { createHash, randomBytes } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { newId, type Transaction } from '@longhaul/persistence';
import type { Scope } from './scopes.js';

export interface IssuedToken {
  id: string;
  /** Shown once; only its hash is kept. */
  token: string;
}

export interface TokenOptions {
  /** What its owner calls it. */
  name?: string;
  /** Restrict it to these; not given or empty: all that the user may see. */
  projectIds?: readonly string[];
  vmIds?: readonly string[];
  expiresAt?: Date;
}

const DIGITS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
/** Digits of base 62 that 256 and 32 bits take. */
const SECRET_DIGITS = 43;
const CHECKSUM_DIGITS = 6;

/** What tokens look like: the last six digits are the CRC-32 of those before, so that scanners find no false ones. */
export const TOKEN_PATTERN = /^lh_([0-9A-Za-z]{43})([0-9A-Za-z]{6})$/;
/** Tokens made before they had a checksum. */
const EARLIER_PATTERN = /^lh_[\w-]{43}$/;

/** A token is 256 random bits, so a plain SHA-256 is enough to store it by. */
export const hashToken = (token: string) => createHash('sha256').update(token).digest();

/** Whether it can be a token at all: what cannot is not looked up. */
export function isToken(text: string): boolean {
  const [, secret, checksum] = TOKEN_PATTERN.exec(text) ?? [];
  return secret === undefined ? EARLIER_PATTERN.test(text) : checksumOf(secret) === checksum;
}

/** It holds until it is revoked, has expired, or has not been used for 90 days. */
export async function createToken(
  tx: Transaction,
  userId: string,
  scopes: readonly Scope[],
  { name, projectIds = [], vmIds = [], expiresAt }: TokenOptions = {},
): Promise<IssuedToken> {
  const token = newToken();
  const id = newId();
  await tx.token.create({
    data: {
      id,
      userId,
      name,
      hash: hashToken(token),
      hint: token.slice(0, 7),
      scopes: [...scopes],
      projectIds: [...projectIds],
      vmIds: [...vmIds],
      expiresAt,
    },
  });
  return { id, token };
}

export function newToken(): string {
  const secret = base62(BigInt(`0x${randomBytes(32).toString('hex')}`), SECRET_DIGITS);
  return `lh_${secret}${checksumOf(secret)}`;
}

const checksumOf = (secret: string) => base62(BigInt(crc32(secret)), CHECKSUM_DIGITS);

function base62(number: bigint, digits: number): string {
  let text = '';
  for (let rest = number; text.length < digits; rest /= 62n) text = DIGITS[Number(rest % 62n)] + text;
  return text;
}
