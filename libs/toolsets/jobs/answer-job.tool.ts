import { defineTool } from '@longhaul/mcp';
import { z } from 'zod';
import { jobId } from '../arguments.js';
import { jobAnswer, jobAnswerShape } from './job-fields.js';

export const answerJob = defineTool({
  name: 'answer_job',
  title: 'Answer what a job asks',
  description:
    'Answers questions of a job whose status is awaiting_input; get_job shows them with the form of their answers. When none is left open the job goes on. Ask the person you work for unless you know the answer.',
  toolset: 'jobs',
  scope: 'any',
  annotations: { readOnlyHint: false, destructiveHint: false, idempotentHint: true, openWorldHint: false },
  input: z.strictObject({
    job_id: jobId,
    answers: z
      .array(
        z.strictObject({
          key: z.string().min(1).max(128),
          action: z.enum(['accept', 'decline', 'cancel']),
          content: z
            .record(z.string(), z.unknown())
            .optional()
            .describe("Of accept: an object of the question's schema"),
        }),
      )
      .min(1)
      .max(32),
  }),
  output: z.object(jobAnswerShape),
  async handle(call, { answers }) {
    const given = answers.map(({ key, ...answer }) => [key, answer]);
    return jobAnswer(await call.answer(Object.fromEntries(given)), call.services, call.caller);
  },
});
