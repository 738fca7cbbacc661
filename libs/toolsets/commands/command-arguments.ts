import { z } from 'zod';
import { COMMAND_MAX_BYTES } from './vm-command.job.js';

/** Arguments of the tools that start a command. */
export const commandArguments = {
  command: z
    .string()
    .min(1)
    .max(COMMAND_MAX_BYTES)
    .refine((text) => Buffer.byteLength(text) <= COMMAND_MAX_BYTES, {
      error: `expected at most ${COMMAND_MAX_BYTES} bytes of UTF-8; put longer scripts into a file`,
      abort: true,
    })
    .describe('Run by sh as root; at most 64 KiB'),
  working_directory: z
    .string()
    .max(4096)
    .regex(/^\//, 'expected an absolute path')
    .optional()
    .describe('Absolute path that exists in the VM'),
  label: z.string().min(1).max(128).optional().describe('Shown in lists of jobs'),
};
