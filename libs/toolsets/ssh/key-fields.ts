import type { SshKey } from '@longhaul/persistence';
import { z } from 'zod';

export const keyShape = {
  ssh_key_id: z.string(),
  name: z.string(),
  public_key: z.string(),
  fingerprint: z.string(),
  created_at: z.string(),
};

export const keyFields = (key: SshKey): z.output<z.ZodObject<typeof keyShape>> => ({
  ssh_key_id: key.id,
  name: key.name,
  public_key: key.publicKey,
  fingerprint: key.fingerprint,
  created_at: key.createdAt.toISOString(),
});
