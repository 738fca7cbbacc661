import { defineJobKind } from '@longhaul/jobs';
import { z } from 'zod';

export const POWER_ACTIONS = ['start', 'stop', 'reset'] as const;

/** `stop` pulls the plug and `reset` presses the button: both cut what runs in the VM. */
export const vmPower = defineJobKind({
  name: 'vm.power',
  version: 1,
  payload: z.strictObject({ action: z.enum(POWER_ACTIONS) }),
  result: z.strictObject({ power_state: z.string() }),
  scope: 'vms:power',
  slot: 'lifecycle',
  lane: 'interactive',
  queueSeconds: 60,
  runSeconds: () => 300,
});
