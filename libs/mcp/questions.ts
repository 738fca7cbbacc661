import { AppError } from '@longhaul/errors';
import type { Actor, Answer } from '@longhaul/jobs';
import type { Job } from '@longhaul/persistence';
import { inputRequired, type InputRequests } from '@modelcontextprotocol/server';
import type { Services } from './call.js';
import { isAnswerTo } from './input.js';

/** The open questions of a job, as the elicitations that a client knows how to put to a person. */
export async function questionsOf(job: Job, { jobs }: Services): Promise<InputRequests> {
  if (job.state !== 'awaiting_input') return {};
  const questions = await jobs.questions(job.id);
  return Object.fromEntries(
    Object.entries(questions).map(([key, { message, schema }]) => [
      key,
      inputRequired.elicit({ message, requestedSchema: schema as never }),
    ]),
  );
}

/**
 * Stores the answers to open questions; those to others are left out, as the tasks extension has it. Errors:
 * `invalid_arguments` for one that is not of the form that was asked for, and then none is stored.
 */
export async function answerQuestions(
  job: Job,
  responses: Record<string, unknown>,
  services: Services,
  by: Actor,
): Promise<{ job: Job; answered: string[] }> {
  const answers: Record<string, Answer> = {};
  for (const [key, question] of Object.entries(await questionsOf(job, services))) {
    if (!Object.hasOwn(responses, key)) continue;
    if (!isAnswerTo(question, responses, key)) {
      throw new AppError('invalid_arguments', `The answer to ${key} is not of the form that was asked for.`);
    }
    answers[key] = responses[key] as Answer;
  }
  const answered = Object.keys(answers);
  if (answered.length === 0) return { job, answered };
  return { job: await services.jobs.answer(job.id, answers, by), answered };
}
