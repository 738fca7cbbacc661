import { existsSync } from 'node:fs';
import { rotateSigningKeys } from '@longhaul/oauth';
import { Secrets, StoredSecrets, addKey } from '@longhaul/secrets';
import type { Command } from './commands.js';
import { openHome } from './home.js';
import { secretsEnv, type SecretsEnv } from './secrets.js';
import { UsageError } from './usage.js';

export const keyCommands: Record<string, Command> = {
  'key rotate': {
    args: [],
    async run(context) {
      const env = masterKeys();
      if ('SECRETS_KEY_FILE' in env) {
        console.log(`New key ${addKey(env.SECRETS_KEY_FILE)}, first in ${env.SECRETS_KEY_FILE}.`);
      } else {
        console.log('The keys are in SECRETS_KEYS: what is stored goes under the first of them.');
      }
      const rewrapped = await new StoredSecrets(context.db, new Secrets(env)).rewrapAll();
      await context.change('key rotate', { rewrapped }, async () => undefined);
      console.log(`${rewrapped} stored secrets are under it now. Keep the earlier keys with your backups.`);
    },
  },

  'key rotate-signing': {
    args: [],
    async run(context) {
      const stored = new StoredSecrets(context.db, new Secrets(masterKeys()));
      await rotateSigningKeys(context.db, stored);
      await context.change('key rotate-signing', {}, async () => undefined);
      console.log(
        'A new key signs ID tokens, on every replica within a minute. The one before it still verifies.',
      );
    },
  },
};

function masterKeys(): SecretsEnv {
  const env = secretsEnv(openHome());
  if ('SECRETS_KEY_FILE' in env && !existsSync(env.SECRETS_KEY_FILE))
    throw new UsageError(`There is no ${env.SECRETS_KEY_FILE}. Set SECRETS_KEY_FILE or SECRETS_KEYS.`);
  return env;
}
