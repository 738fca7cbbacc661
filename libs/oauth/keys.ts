import { generateKeyPair } from 'node:crypto';
import { promisify } from 'node:util';
import type { Database } from '@longhaul/persistence';
import type { StoredSecrets } from '@longhaul/secrets';
import type { JWK } from 'oidc-provider';

/** After this long another key signs; the one before it still verifies what it has signed. */
const GENERATION_DAYS = 30;
const PREFIX = 'oauth-rs256-';

/** The keys of both live generations, newest first: that one signs. Makes the next generation when it is due. */
export async function signingKeys(db: Database, secrets: StoredSecrets): Promise<JWK[]> {
  const numbers = await generations(db);
  const [newest] = numbers;
  if (!newest || newest.isOld) {
    await makeGeneration(db, secrets, (newest?.number ?? 0) + 1);
    return signingKeys(db, secrets);
  }
  return Promise.all(
    numbers.map(async ({ number }) => {
      const key = await secrets.signingKey(PREFIX + number, makeKey);
      return { ...(JSON.parse(key.toString()) as JWK), alg: 'RS256', use: 'sig' };
    }),
  );
}

/** Lets a new key sign. Other replicas know of it within a minute; until then what they sign is good too. */
export async function rotateSigningKeys(db: Database, secrets: StoredSecrets): Promise<void> {
  const [newest] = await generations(db);
  await makeGeneration(db, secrets, (newest?.number ?? 0) + 1);
}

async function makeGeneration(db: Database, secrets: StoredSecrets, number: number): Promise<void> {
  await secrets.signingKey(PREFIX + number, makeKey);
  await db.signingKey.deleteMany({ where: { name: PREFIX + (number - 2) } });
}

async function makeKey(): Promise<Buffer> {
  const { privateKey } = await promisify(generateKeyPair)('rsa', { modulusLength: 2048 });
  return Buffer.from(JSON.stringify(privateKey.export({ format: 'jwk' })));
}

const generations = (db: Database) => db.$queryRaw<{ number: number; isOld: boolean }[]>`
  SELECT substr(name, ${PREFIX.length + 1})::int AS number,
    created_at < now() - ${GENERATION_DAYS} * interval '1 day' AS "isOld"
  FROM signing_keys WHERE starts_with(name, ${PREFIX}) ORDER BY number DESC LIMIT 2`;
