import { AppError } from '@longhaul/errors';
import { inputRequired, type ClientCapabilities } from '@modelcontextprotocol/server';
import type { Call } from './call.js';
import { InputNeeded, answersTo } from './input.js';
import type { RequestStates } from './request-states.js';

/** Who has confirmed a call: a person whom the client asked, or whoever wrote the arguments. */
export type ConfirmedBy = 'person' | 'argument';

const KEY = 'confirmation';
const QUESTION_SCHEMA = {
  type: 'object' as const,
  properties: { confirm: { type: 'boolean' as const, title: 'Yes, do this', default: false } },
  required: ['confirm'],
};

/**
 * Makes sure that a tool which needs it has been confirmed, by what the client can do: it asks a person, or it gives the exact
 * phrase as an argument. Throws InputNeeded to have it asked; errors: `confirmation_required` with `details.phrase`.
 */
export async function confirm(
  call: Call,
  args: Record<string, unknown>,
  states: RequestStates,
): Promise<ConfirmedBy | undefined> {
  const { confirmation } = call.tool;
  if (!confirmation) return undefined;
  const { client } = call.request;
  if (client && takesForms(client.capabilities)) {
    const requests = {
      [KEY]: inputRequired.elicit({
        message: confirmation.message(call, args),
        requestedSchema: QUESTION_SCHEMA,
      }),
    };
    // An answer without the question that we have signed is not an answer.
    if (!client.state) throw new InputNeeded(requests, {});
    const answer = answersTo(requests, client)[KEY]!;
    await states.use(client.state);
    if (answer.action === 'accept' && (answer.content as { confirm?: unknown }).confirm === true)
      return 'person';
    throw new AppError(
      'confirmation_required',
      'The person who was asked said no. Do not try again unasked.',
    );
  }
  const phrase = confirmation.phrase(call, args);
  const person = confirmation.by === 'person' || (await projectAsksPersons(call));
  if (!person && args.confirmation === phrase) return 'argument';
  throw new AppError(
    'confirmation_required',
    person
      ? 'A person must confirm this through a client that supports elicitation; this client cannot ask.'
      : `This needs a confirmation. If it is really wanted, call again with confirmation: ${JSON.stringify(phrase)}.`,
    person ? { by: 'person' } : { phrase },
  );
}

async function projectAsksPersons({ vm, services }: Call): Promise<boolean> {
  if (!vm) return false;
  const project = await services.db.project.findUniqueOrThrow({ where: { id: vm.projectId } });
  return project.confirmation === 'person';
}

/** Elicitation without a mode means forms. */
export function takesForms(capabilities: ClientCapabilities | undefined): boolean {
  const elicitation = capabilities?.elicitation;
  return elicitation !== undefined && (elicitation.form !== undefined || elicitation.url === undefined);
}
