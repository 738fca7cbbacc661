import type { ErrorBody } from '@longhaul/errors';
import type { Reader, Services } from '@longhaul/mcp';
import { JobState, type Job } from '@longhaul/persistence';
import { z } from 'zod';
import { rootPassword } from './root-password.js';

export const errorShape = z.looseObject({
  code: z.string(),
  message: z.string(),
  retryable: z.boolean(),
});

export const jobStatus = z.enum(Object.values(JobState) as [JobState, ...JobState[]]);

/** How a list shows a job. Times are ISO 8601. */
export const jobLineShape = {
  job_id: z.string(),
  kind: z.string(),
  status: jobStatus,
  label: z.string().optional(),
  vm_id: z.string().optional(),
  attempt: z.int().describe('How many workers have taken it up so far'),
  cancel_requested: z.boolean(),
  created_at: z.string(),
  started_at: z.string().optional(),
  finished_at: z.string().optional(),
  error: errorShape.optional(),
};

/** How an answer about one job shows it, the same in every tool. */
export const jobShape = {
  ...jobLineShape,
  progress: z.unknown().optional(),
  result: z.unknown().optional(),
};

export function jobLine(job: Job): z.output<z.ZodObject<typeof jobLineShape>> {
  return {
    job_id: job.id,
    kind: job.kind,
    status: job.state,
    label: job.label ?? undefined,
    vm_id: job.vmId ?? undefined,
    attempt: job.attempt,
    cancel_requested: job.cancelRequestedAt !== null,
    created_at: job.createdAt.toISOString(),
    started_at: job.startedAt?.toISOString(),
    finished_at: job.finishedAt?.toISOString(),
    error: errorOf(job),
  };
}

export function jobFields(job: Job): z.output<z.ZodObject<typeof jobShape>> {
  return { ...jobLine(job), progress: job.progress ?? undefined, result: job.result ?? undefined };
}

/** As one answer about a job shows it that may await input. */
export const jobAnswerShape = {
  ...jobShape,
  questions: z
    .array(
      z.object({
        key: z.string(),
        message: z.string(),
        schema: z.record(z.string(), z.unknown()).describe("JSON Schema of the answer's content"),
      }),
    )
    .optional()
    .describe('Of awaiting_input: answer_job answers them'),
  root_password: z.string().optional().describe('Told once, to who made the job'),
};

export async function jobAnswer(
  job: Job,
  services: Services,
  reader: Reader,
): Promise<z.output<z.ZodObject<typeof jobAnswerShape>>> {
  if (job.state !== 'awaiting_input')
    return { ...jobFields(job), root_password: await rootPassword(job, services, reader) };
  const questions = Object.entries(await services.jobs.questions(job.id));
  return { ...jobFields(job), questions: questions.map(([key, question]) => ({ key, ...question })) };
}

/** The stored error of a job that has one. */
export const errorOf = (job: Job) =>
  (job.error ?? undefined) as (ErrorBody & Record<string, unknown>) | undefined;
