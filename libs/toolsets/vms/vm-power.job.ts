import { defineJobKind } from '@longhaul/jobs';
import { z } from 'zod';

export const POWER_ACTIONS = ['start', 'shutdown', 'reboot', 'stop', 'reset'] as const;

/** How long a guest that is asked to power off may take, seconds. */
export const SHUTDOWN_SECONDS = { least: 1, default: 60, most: 600 };

/**
 * `shutdown` asks the guest to power off, `reboot` too, and starts it again; `stop` pulls the plug and `reset` presses the
 * button. All but `start` cut what runs in the VM. A guest that does not power off in time makes the job `timed_out`, and
 * the VM runs on.
 */
export const vmPower = defineJobKind({
  name: 'vm.power',
  version: 1,
  payload: z.strictObject({ action: z.enum(POWER_ACTIONS), timeout_seconds: z.int().optional() }),
  result: z.strictObject({
    power_state: z.string(),
    /** Of shutdown and reboot. */
    powered_off: z.boolean().optional(),
    message: z.string().optional(),
  }),
  scope: 'vms:power',
  slot: 'lifecycle',
  lane: 'interactive',
  queueSeconds: 60,
  runSeconds: ({ timeout_seconds = SHUTDOWN_SECONDS.default }) => 300 + timeout_seconds,
});
