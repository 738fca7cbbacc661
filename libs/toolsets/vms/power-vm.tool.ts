import { defineJobTool } from '@longhaul/mcp';
import { z } from 'zod';
import { idempotencyKey, vmId } from '../arguments.js';
import { requireAbility } from './abilities.js';
import { observedOf } from './observed.js';
import { vmJobAnswer, vmJobShape } from './vm-job.js';
import { POWER_ACTIONS, SHUTDOWN_SECONDS, vmPower } from './vm-power.job.js';

export const powerVm = defineJobTool({
  name: 'power_vm',
  title: 'Switch a VM on or off',
  description:
    'Starts a VM; asks its guest to shut down or reboot; or cuts its power: stop pulls the plug, reset presses the button. Commands in it end. A guest that does not shut down in time makes the job timed_out, and the VM runs on.',
  toolset: 'vms',
  scope: 'vms:power',
  annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: false, openWorldHint: false },
  vm: { slot: 'lifecycle' },
  input: z.strictObject({
    vm_id: vmId,
    action: z.enum(POWER_ACTIONS),
    timeout_seconds: z
      .int()
      .min(SHUTDOWN_SECONDS.least)
      .max(SHUTDOWN_SECONDS.most)
      .default(SHUTDOWN_SECONDS.default)
      .describe('Of shutdown and reboot: how long the guest may take'),
    idempotency_key: idempotencyKey,
  }),
  output: z.object(vmJobShape),
  answerWithinMs: 0,
  async submit(call, { action, timeout_seconds, idempotency_key: idempotencyKey }) {
    requireAbility(observedOf(call.vm).abilities, 'power');
    return call.submit(vmPower, { action, timeout_seconds }, { label: action, idempotencyKey });
  },
  answer: vmJobAnswer,
});
