import { createHash } from 'node:crypto';
import { AppError } from '@longhaul/errors';
import { newId } from '@longhaul/persistence';
import {
  fromJsonSchema,
  inputRequired,
  inputResponse,
  type ClientCapabilities,
  type InputRequest,
  type InputRequests,
  type InputRequiredResult,
  type JsonSchemaType,
} from '@modelcontextprotocol/server';

/** By the keys of the requests: an elicitation's `{ action, content? }`, a sampling's or a listing's result. */
export type InputAnswers = Record<string, Record<string, unknown>>;

/** What a client can be asked for within a request, and what it has brought along as answers. */
export interface Asking {
  /** What it declared; undefined when nothing can reach it before the result does. */
  capabilities: ClientCapabilities | undefined;
  /** Answers as the client sent them: nothing in them has been checked. */
  responses?: Record<string, unknown>;
  /** What the last round of the same call left, its signature checked. */
  state?: RequestState;
  /** Answers that this round has taken so far, those of earlier rounds among them. */
  taken?: InputAnswers;
  /** Signs what the next round needs. */
  seal(state: Omit<RequestState, 'expiresAt'>): Promise<string>;
}

/** How long a person may think about a question that came with a call. */
export const STATE_SECONDS = 600;

/** What a call that asks its client keeps for its next round. */
export interface RequestState {
  /** Good for one confirmation. */
  id: string;
  /** Digest of the tool or prompt, its arguments and what they named. */
  digest: string;
  /** Of earlier rounds. */
  answers: InputAnswers;
  /** Unix time in seconds, by the database's clock, after which it is refused. */
  expiresAt: number;
}

/** Ends a round of a call: its client is to answer first. */
export class InputNeeded extends Error {
  override name = 'InputNeeded';
  constructor(
    readonly requests: InputRequests,
    /** What has been answered so far. */
    readonly answers: InputAnswers,
  ) {
    super(`input needed: ${Object.keys(requests).join(', ')}`);
  }
}

/** Throws InputNeeded while one of the requests has no answer of the form that it asks for. */
export function answersTo(requests: InputRequests, client: Asking | undefined): InputAnswers {
  const answers: InputAnswers = { ...client?.state?.answers, ...client?.taken };
  const missing: InputRequests = {};
  for (const [key, request] of Object.entries(requests)) {
    if (Object.hasOwn(answers, key)) continue;
    const answer = client?.responses?.[key];
    if (isAnswerTo(request, client?.responses, key)) answers[key] = answer as Record<string, unknown>;
    else missing[key] = request;
  }
  if (client) client.taken = answers;
  if (Object.keys(missing).length > 0) throw new InputNeeded(missing, answers);
  return answers;
}

/** Whether a client's word is an answer of the form that a request asks for. */
export function isAnswerTo(
  request: InputRequest,
  responses: Record<string, unknown> | undefined,
  key: string,
): boolean {
  const view = inputResponse(responses, key);
  switch (view.kind) {
    case 'elicit': {
      if (request.method !== 'elicitation/create') return false;
      if (view.action !== 'accept' || request.params.mode === 'url') return true;
      const schema = request.params.requestedSchema as unknown as JsonSchemaType;
      const checked = fromJsonSchema(schema)['~standard'].validate(view.content ?? {});
      return !(checked instanceof Promise) && checked.issues === undefined;
    }
    case 'sampling':
      return request.method === 'sampling/createMessage';
    case 'roots':
      return request.method === 'roots/list';
    case 'missing':
      return false;
  }
}

/** Ends a round of a call with what the client is asked; what it has answered so far comes back with its next round. */
export async function askClient(
  { requests, answers }: InputNeeded,
  digest: string,
  client: Asking,
): Promise<InputRequiredResult> {
  const requestState = await client.seal({ id: newId(), digest, answers });
  return inputRequired({ inputRequests: requests, requestState });
}

/** What a client sends back must be of the same call that it was given for. Errors: `request_state_invalid`. */
export function requireStateOf(digest: string, client: Asking | undefined): void {
  if (!client?.state || client.state.digest === digest) return;
  throw new AppError('request_state_invalid', 'Invalid or expired requestState');
}

/** Of a call and what its arguments name: what has been confirmed for one VM says nothing about another. */
export const digestOf = (...parts: unknown[]) =>
  createHash('sha256').update(JSON.stringify(parts)).digest('base64url');
