import { defineTool } from '@longhaul/mcp';
import { z } from 'zod';
import { confirmationPhrase, exactVmId } from '../arguments.js';

export const setVmExecEnabled = defineTool({
  name: 'set_vm_exec_enabled',
  title: 'Allow or forbid commands on a VM',
  description:
    'Switches the running of commands in a VM on or off; it is off on every new VM. Needs a confirmation: a person is asked where the client can do that, else the error names the phrase to send. Commands that run already go on.',
  toolset: 'vms',
  scope: 'vms:exec',
  annotations: { readOnlyHint: false, destructiveHint: false, idempotentHint: true, openWorldHint: false },
  input: z.strictObject({ vm_id: exactVmId, enabled: z.boolean(), confirmation: confirmationPhrase }),
  output: z.object({ vm_id: z.string(), hostname: z.string(), mcp_exec_enabled: z.boolean() }),
  confirmation: {
    phrase: ({ vm }, { enabled }) => `${enabled ? 'ENABLE' : 'DISABLE'} MCP EXEC ${vm.id}`,
    message: ({ vm }, { enabled }) =>
      enabled
        ? `Let agents run commands as root in the VM ${vm.hostname} (${vm.id})?`
        : `Stop agents from running commands in the VM ${vm.hostname} (${vm.id})?`,
  },
  async handle({ vm, services }, { enabled }) {
    await services.db.vm.update({ where: { id: vm.id }, data: { execEnabled: enabled } });
    if (enabled) await services.jobs.redeliverCommands();
    return { vm_id: vm.id, hostname: vm.hostname, mcp_exec_enabled: enabled };
  },
});
