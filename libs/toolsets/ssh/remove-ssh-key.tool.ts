import { defineTool } from '@longhaul/mcp';
import { parseId } from '@longhaul/persistence';
import { z } from 'zod';
import { sshKeyNotFound } from './public-key.js';

export const removeSshKey = defineTool({
  name: 'remove_ssh_key',
  title: 'Remove an SSH key',
  description: 'Forgets a registered key. VMs that have it already keep letting its owner in.',
  toolset: 'ssh',
  scope: 'vms:power',
  annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: false, openWorldHint: false },
  input: z.strictObject({ ssh_key_id: z.string().min(1).max(64) }),
  output: z.object({ ssh_key_id: z.string(), removed: z.literal(true) }),
  async handle({ caller, services }, { ssh_key_id: keyId }) {
    const id = parseId(keyId);
    const where = { id: id ?? '', userId: caller.userId };
    const { count } = id ? await services.db.sshKey.deleteMany({ where }) : { count: 0 };
    if (count === 0) throw sshKeyNotFound();
    return { ssh_key_id: keyId, removed: true as const };
  },
});
