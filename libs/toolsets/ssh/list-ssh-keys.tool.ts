import { defineTool } from '@longhaul/mcp';
import { z } from 'zod';
import { keyFields, keyShape } from './key-fields.js';

export const listSshKeys = defineTool({
  name: 'list_ssh_keys',
  title: 'List SSH keys',
  description: 'Lists the public keys that you have registered, for create_vm and reinstall_vm.',
  toolset: 'ssh',
  scope: 'account:read',
  annotations: { readOnlyHint: true, destructiveHint: false, idempotentHint: true, openWorldHint: false },
  input: z.strictObject({}),
  output: z.object({ ssh_keys: z.array(z.object(keyShape)) }),
  async handle({ caller, services }) {
    const keys = await services.db.sshKey.findMany({
      where: { userId: caller.userId },
      orderBy: { name: 'asc' },
    });
    return { ssh_keys: keys.map(keyFields) };
  },
});
