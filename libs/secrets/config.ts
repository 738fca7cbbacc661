import { z } from 'zod';
import { KEY_PATTERN } from './keyring.js';

export const secretsConfig = z.object({
  SECRETS_KEYS: z
    .string()
    .regex(
      new RegExp(`^${KEY_PATTERN}(,${KEY_PATTERN})*$`),
      'expected id:key[,id:key…], a key being 32 bytes in base64',
    )
    .optional()
    .describe(
      'Master keys of what is stored encrypted, as id:key,… with keys of 32 bytes in base64; the first one seals, all open',
    ),
  SECRETS_KEY_FILE: z.string().optional().meta({
    description: 'File with those keys instead, one id:key a line',
    default: 'secrets.key in LONGHAUL_HOME, made when missing; replicas need the same keys',
  }),
  LONGHAUL_HOME: z
    .string()
    .default(process.getuid?.() === 0 ? '/var/lib/longhaul' : '.longhaul')
    .meta({
      description: 'Folder of secrets.key, when neither of the two is set',
      default: '.longhaul; as root /var/lib/longhaul',
    }),
});

export type SecretsConfig = z.output<typeof secretsConfig>;
