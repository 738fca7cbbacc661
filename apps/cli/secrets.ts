import { join } from 'node:path';
import { ensureKeyFile } from '@longhaul/secrets';
import { fromEnvironment } from './environment.js';
import type { Home } from './home.js';

/** Where the master keys of stored secrets are, for the API. */
export type SecretsEnv = { SECRETS_KEYS: string } | { SECRETS_KEY_FILE: string };

/** As the environment says, else the file of this home. */
export function secretsEnv({ directory }: Pick<Home, 'directory'>): SecretsEnv {
  const keys = fromEnvironment('SECRETS_KEYS');
  if (keys) return { SECRETS_KEYS: keys };
  return { SECRETS_KEY_FILE: fromEnvironment('SECRETS_KEY_FILE') ?? join(directory, 'secrets.key') };
}

/** Makes the first key where there is none. A file that somebody has named must be there: a new one would open nothing. */
export function ensureSecretsKeys(home: Pick<Home, 'directory'>): SecretsEnv {
  const env = secretsEnv(home);
  if ('SECRETS_KEY_FILE' in env && !fromEnvironment('SECRETS_KEY_FILE')) ensureKeyFile(env.SECRETS_KEY_FILE);
  return env;
}
