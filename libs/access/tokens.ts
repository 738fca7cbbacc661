import { createHash, randomBytes } from 'node:crypto';
import { newId, type Transaction } from '@longhaul/persistence';
import type { Scope } from './scopes.js';

export interface IssuedToken {
  id: string;
  /** Shown once; only its hash is kept. */
  token: string;
}

/** A token is 256 random bits, so a plain SHA-256 is enough to store it by. */
export const hashToken = (token: string) => createHash('sha256').update(token).digest();

export async function createToken(
  tx: Transaction,
  userId: string,
  scopes: readonly Scope[],
): Promise<IssuedToken> {
  const token = `lh_${randomBytes(32).toString('base64url')}`;
  const id = newId();
  await tx.token.create({
    data: { id, userId, hash: hashToken(token), hint: token.slice(0, 7), scopes: [...scopes] },
  });
  return { id, token };
}
