import { defineTool } from '@longhaul/mcp';
import { z } from 'zod';
import { vmFields, vmShape } from './vm-fields.js';

export const listVms = defineTool({
  name: 'list_vms',
  title: 'List VMs',
  description: 'Lists your VMs by hostname. next_cursor is there when more follow: pass it back as cursor.',
  toolset: 'vms',
  scope: 'vms:read',
  annotations: { readOnlyHint: true, destructiveHint: false, idempotentHint: true, openWorldHint: false },
  input: z.strictObject({
    limit: z.int().min(1).max(100).default(50),
    cursor: z.string().min(1).max(64).optional(),
  }),
  output: z.object({ vms: z.array(z.object(vmShape)), next_cursor: z.string().optional() }),
  async handle({ caller, services }, { limit, cursor }) {
    const found = await services.access.listVms(caller, limit + 1, cursor);
    const vms = await vmFields(services.db, found.slice(0, limit));
    return { vms, next_cursor: found.length > limit ? vms.at(-1)?.id : undefined };
  },
});
