import { z } from 'zod';

// What means the same in every tool.

/** How long a tool waits for its job, milliseconds: clients give up at 60 s. A longer one goes on and is answered with its id. */
export const ANSWER_WITHIN_MS = 50_000;

export const vmId = z.string().min(1).max(253).describe('Id, exact hostname, or unique prefix of either');

/** Where a confirmation is asked for, a prefix is not enough. */
export const exactVmId = z
  .guid('expected the id of a VM')
  .describe('Id of the VM; no hostname or prefix here');
export const confirmationPhrase = z
  .string()
  .max(256)
  .optional()
  .describe('Only when an error has asked for it: the exact phrase that it names');
export const jobId = z.string().min(1).max(64).describe('Id that the tool which made the job has answered');

export const commandId = z.string().min(1).max(64).describe('command_id that the command was started with');

export const idempotencyKey = z
  .string()
  .regex(/^[ -~]{1,128}$/, 'expected 1 to 128 printable ASCII characters')
  .optional()
  .describe('Any text of your own: a retry with the same key answers the same job and makes no second one');

/** Bytes of one stream in one answer. */
export const SLICE_MAX_BYTES = 65_536;

export const offset = z
  .int()
  .min(0)
  .max(2 ** 50);
