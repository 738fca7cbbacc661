import { AppError } from '@longhaul/errors';
import { defineTool } from '@longhaul/mcp';
import { newId } from '@longhaul/persistence';
import { z } from 'zod';
import { keyFields, keyShape } from './key-fields.js';
import { parsePublicKey, publicKey } from './public-key.js';

/** Of one user. */
const MAX_KEYS = 100;

export const addSshKey = defineTool({
  name: 'add_ssh_key',
  title: 'Register an SSH key',
  description:
    'Registers a public key of yours under a name. It gets into a VM only where create_vm or reinstall_vm name it.',
  toolset: 'ssh',
  scope: 'vms:power',
  annotations: { readOnlyHint: false, destructiveHint: false, idempotentHint: true, openWorldHint: false },
  input: z.strictObject({
    name: z
      .string()
      .max(64)
      .regex(/^[^\p{Cc}]+$/u, 'expected 1 to 64 printable characters'),
    public_key: publicKey.describe('As in a .pub file: type, base64, comment'),
  }),
  output: z.object(keyShape),
  async handle({ caller, services }, { name, public_key: text }) {
    const { userId } = caller;
    const { line, fingerprint } = parsePublicKey(text)!;
    return services.db.$transaction(async (tx) => {
      // Of a user one at a time, so that the limit holds.
      await tx.$queryRaw`SELECT FROM users WHERE id = ${userId}::uuid FOR UPDATE`;
      const keys = await tx.sshKey.findMany({ where: { userId } });
      const same = keys.find((key) => key.fingerprint === fingerprint);
      if (same?.name === name) return keyFields(same);
      if (same) throw new AppError('conflict', `This key is registered as ${same.name} already.`);
      if (keys.some((key) => key.name === name))
        throw new AppError('conflict', 'Another key has this name; remove it first.');
      if (keys.length >= MAX_KEYS)
        throw new AppError('quota_exceeded', `A user has at most ${MAX_KEYS} SSH keys.`, { limit: MAX_KEYS });
      return keyFields(
        await tx.sshKey.create({ data: { id: newId(), userId, name, publicKey: line, fingerprint } }),
      );
    });
  },
});
