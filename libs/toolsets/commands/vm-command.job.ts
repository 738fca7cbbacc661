import { defineJobKind } from '@longhaul/jobs';
import { z } from 'zod';

/** Longest command, in bytes of UTF-8: it travels as one argument of the guest's shell. */
export const COMMAND_MAX_BYTES = 64 * 1024;

const payload = z.strictObject({
  command: z.string(),
  timeout_seconds: z.int(),
  working_directory: z.string().optional(),
});

const result = z.strictObject({
  /** As the shell says: 128 + signal for a command that a signal has killed. */
  exit_code: z.int(),
  signal: z.int().optional(),
  duration_ms: z.int(),
});

export type VmCommandPayload = z.output<typeof payload>;
export type VmCommandResult = z.output<typeof result>;

/**
 * A shell command as root in a VM. `succeeded` is exit code 0, `failed` any other, and both have a result; `timed_out` and
 * `cancelled` have one when the command had begun. `unknown`: the VM was reset or reverted under it.
 */
export const vmCommand = defineJobKind({
  name: 'vm.command',
  version: 1,
  payload,
  result,
  scope: 'vms:exec',
  slot: 'command',
  exec: true,
  lane: 'bulk',
  queueSeconds: 900,
  runSeconds: (command) => command.timeout_seconds + 120,
});
