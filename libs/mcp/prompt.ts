import {
  ProtocolError,
  ProtocolErrorCode,
  type GetPromptResult,
  type InputRequests,
  type InputRequiredResult,
  type Prompt,
  type PromptMessage,
} from '@modelcontextprotocol/server';
import { InputNeeded, answersTo, askClient, digestOf, type Asking, type InputAnswers } from './input.js';

/** Longest value of an argument. */
const ARGUMENT_MAX = 4096;

/** A message that a person can start from, for one of the usual jobs. */
export interface PromptDefinition {
  name: string;
  title: string;
  description: string;
  /** Names of its arguments, all of them required, with what each one is. */
  arguments: Record<string, string>;
  /** The text of the one message, or all messages. `ask` has the client asked, as Call.ask does. */
  messages(
    args: Record<string, string>,
    ask: (requests: InputRequests) => InputAnswers,
  ): string | PromptMessage[];
}

export const listedPrompt = ({ name, title, description, arguments: args }: PromptDefinition): Prompt => ({
  name,
  title,
  description,
  arguments: Object.entries(args).map(([argument, meaning]) => ({
    name: argument,
    description: meaning,
    required: true,
  })),
});

/** Errors: the protocol's "invalid params" for an unknown prompt, and for an argument that is missing, unknown or too long. */
export async function getPrompt(
  prompts: readonly PromptDefinition[],
  name: string,
  given: Record<string, string> = {},
  client?: Asking,
): Promise<GetPromptResult | InputRequiredResult> {
  const prompt = prompts.find((one) => one.name === name);
  if (!prompt) throw invalid('There is no such prompt; prompts/list names those there are.');
  const unknown = Object.keys(given).find((argument) => !Object.hasOwn(prompt.arguments, argument));
  if (unknown !== undefined)
    throw invalid(`The prompt ${name} takes ${Object.keys(prompt.arguments).join(', ')}.`);
  for (const argument of Object.keys(prompt.arguments)) {
    const value = given[argument];
    if (!value || value.length > ARGUMENT_MAX) {
      throw invalid(`${argument} must have 1 to ${ARGUMENT_MAX} characters.`);
    }
  }
  const digest = digestOf(name, given);
  if (client?.state && client.state.digest !== digest) throw invalid('Invalid or expired requestState');
  try {
    const said = prompt.messages(given, (requests) => answersTo(requests, client));
    return { description: prompt.description, messages: typeof said === 'string' ? [userSays(said)] : said };
  } catch (thrown) {
    if (thrown instanceof InputNeeded && client) return askClient(thrown, digest, client);
    throw thrown;
  }
}

const userSays = (text: string): PromptMessage => ({ role: 'user', content: { type: 'text', text } });

const invalid = (message: string) => new ProtocolError(ProtocolErrorCode.InvalidParams, message);
