import { hash, verify } from '@node-rs/argon2';
import type { Transaction } from '@longhaul/persistence';

/** Longer ones are refused, so that nobody makes us hash megabytes. */
export const PASSWORD_LENGTH = { min: 12, max: 512 } as const;

/** Of the library's constant enum, which modules compiled one by one cannot read. */
const ARGON2ID = 2;
/** What OWASP asks of argon2id at least: 19 MiB, two passes. */
const OPTIONS = { algorithm: ARGON2ID, memoryCost: 19_456, timeCost: 2, parallelism: 1 };

/** Of no password: an address that nobody has must take as long as any other. */
let decoy: Promise<string> | undefined;

/** A hash with its salt and parameters in it. */
export const hashPassword = (password: string): Promise<string> => hash(password, OPTIONS);

/**
 * The user of this address, in any case of its letters, and password. Undefined for a wrong one, for nobody's address, and
 * for users without a password or suspended: all take as long.
 */
export async function verifyPassword(
  db: Transaction,
  email: string,
  password: string,
): Promise<{ userId: string } | undefined> {
  if (password.length > PASSWORD_LENGTH.max) return undefined;
  const user = await findUserByEmail(db, email);
  decoy ??= hashPassword('');
  const matches = await verify(user?.passwordHash ?? (await decoy), password);
  return user?.passwordHash && matches ? { userId: user.id } : undefined;
}

/** The user of this address in any case of its letters, unless suspended. Prisma would take `_` and `%` in it for wildcards. */
async function findUserByEmail(db: Transaction, email: string) {
  if (email.includes('\0')) return undefined;
  const [user] = await db.$queryRaw<{ id: string; passwordHash: string | null }[]>`
    SELECT id, password_hash AS "passwordHash" FROM users
    WHERE lower(email) = lower(${email}) AND standing <> 'suspended' ORDER BY email = ${email} DESC LIMIT 1`;
  return user;
}
