import {
  ProtocolError,
  ProtocolErrorCode,
  type GetPromptResult,
  type Prompt,
} from '@modelcontextprotocol/server';

/** Longest value of an argument. */
const ARGUMENT_MAX = 4096;

/** A message that a person can start from, for one of the usual jobs. */
export interface PromptDefinition {
  name: string;
  title: string;
  description: string;
  /** Names of its arguments, all of them required, with what each one is. */
  arguments: Record<string, string>;
  text(args: Record<string, string>): string;
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
export function getPrompt(
  prompts: readonly PromptDefinition[],
  name: string,
  given: Record<string, string> = {},
): GetPromptResult {
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
  const message = { role: 'user' as const, content: { type: 'text' as const, text: prompt.text(given) } };
  return { description: prompt.description, messages: [message] };
}

const invalid = (message: string) => new ProtocolError(ProtocolErrorCode.InvalidParams, message);
