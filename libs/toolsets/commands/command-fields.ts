import { AppError } from '@longhaul/errors';
import type { LogSlice } from '@longhaul/job-log';
import type { Job } from '@longhaul/persistence';
import { z } from 'zod';
import { errorOf, errorShape } from '../jobs/job-fields.js';
import { streamShape } from '../jobs/stream-fields.js';
import { vmCommand, type VmCommandResult } from './vm-command.job.js';

export const commandStatus = z.enum([
  'queued',
  'running',
  'succeeded',
  'failed',
  'timed_out',
  'cancelled',
  'unknown',
]);

/** How an answer shows how a command stands, the same in every tool. */
export const commandShape = {
  command_id: z.string(),
  status: commandStatus,
  exit_code: z.int().optional().describe('128 + signal when a signal ended it'),
  signal: z.int().optional(),
  timed_out: z.boolean(),
  duration_ms: z.int().optional(),
  error: errorShape.optional().describe('Why it did not run to an end of its own'),
};

export const outputShape = { ...streamShape('stdout'), ...streamShape('stderr') };

type CommandFields = z.output<z.ZodObject<typeof commandShape>>;
type OutputFields = z.output<z.ZodObject<typeof outputShape>>;

export function commandFields(job: Job): CommandFields {
  const result = job.result as VmCommandResult | null;
  return {
    command_id: job.id,
    status: commandStatus.parse(job.state),
    exit_code: result?.exit_code,
    signal: result?.signal,
    timed_out: job.state === 'timed_out',
    duration_ms: result?.duration_ms,
    error: errorOf(job),
  };
}

/** The tools of this folder are about commands; other jobs have tools of their own. */
export function requireCommand(job: Job): void {
  if (job.kind === vmCommand.name) return;
  throw new AppError(
    'invalid_arguments',
    `command_id: this is a ${job.kind} job. Use get_job, read_job_logs and cancel_job.`,
  );
}

/** Slices of both streams by a read of the log. */
export async function readBoth<Slice extends LogSlice>(
  read: (stream: 'stdout' | 'stderr') => Promise<Slice>,
): Promise<{ stdout: Slice; stderr: Slice }> {
  const [stdout, stderr] = await Promise.all([read('stdout'), read('stderr')]);
  return { stdout, stderr };
}

/** For readers of text: a line on how the command stands, then its output as it is. */
export function commandText(
  fields: Partial<CommandFields> & Pick<CommandFields, 'command_id' | 'status'> & OutputFields,
): string {
  const { command_id: id, status, exit_code: code, duration_ms: ms, error } = fields;
  const facts = [
    `Command ${id}: ${status}`,
    ...(code === undefined ? [] : [`exit code ${code}`]),
    ...(ms === undefined ? [] : [`${ms} ms`]),
    ...(error ? [`${error.code}: ${error.message}`] : []),
  ];
  return [
    facts.join(', '),
    streamText('stdout', fields.stdout, fields.stdout_encoding, fields.next_stdout_offset, fields.stdout_eof),
    streamText('stderr', fields.stderr, fields.stderr_encoding, fields.next_stderr_offset, fields.stderr_eof),
  ].join('\n');
}

function streamText(name: string, text: string, encoding: string, next: number, eof: boolean): string {
  const state = eof ? 'complete' : `next_${name}_offset ${next}`;
  return `--- ${name} (${encoding === 'base64' ? 'base64, ' : ''}${state})\n${text}`;
}
