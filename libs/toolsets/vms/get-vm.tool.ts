import { defineTool } from '@longhaul/mcp';
import { z } from 'zod';
import { vmId } from '../arguments.js';
import { vmFields, vmShape } from './vm-fields.js';

export const getVm = defineTool({
  name: 'get_vm',
  title: 'Get a VM',
  description: 'Shows one of your VMs.',
  toolset: 'vms',
  scope: 'vms:read',
  annotations: { readOnlyHint: true, destructiveHint: false, idempotentHint: true, openWorldHint: false },
  input: z.strictObject({ vm_id: vmId }),
  output: z.object(vmShape),
  async handle({ vm, services }) {
    const [fields] = await vmFields(services.db, [vm]);
    return fields!;
  },
});
