import { AppError } from '@longhaul/errors';
import { parseId, type Database } from '@longhaul/persistence';
import { z } from 'zod';
import { parsePublicKey, publicKey, sshKeyNotFound } from './public-key.js';

/** Arguments of tools that let the owner of a key into a VM as root. */
export const keyArguments = {
  ssh_key_id: z
    .string()
    .min(1)
    .max(64)
    .optional()
    .describe('A registered key (list_ssh_keys) let in as root'),
  ssh_public_key: publicKey.optional().describe('Or one given here, as in a .pub file'),
};

/**
 * The key that is meant, as a line of authorized_keys; undefined when there is none. Errors: `invalid_arguments` for both at
 * once, `ssh_key_not_found`.
 */
export async function chosenKey(
  db: Database,
  userId: string,
  { ssh_key_id: keyId, ssh_public_key: given }: { ssh_key_id?: string; ssh_public_key?: string },
): Promise<string | undefined> {
  if (keyId !== undefined && given !== undefined)
    throw new AppError('invalid_arguments', 'ssh_key_id, ssh_public_key: give one of them, not both.');
  if (given !== undefined) return parsePublicKey(given)!.line;
  if (keyId === undefined) return undefined;
  const id = parseId(keyId);
  const key = id && (await db.sshKey.findFirst({ where: { id, userId } }));
  if (!key) throw sshKeyNotFound();
  return key.publicKey;
}
