import type { ServerResponse } from 'node:http';
import { AppError } from '@longhaul/errors';
import { z } from 'zod';
import type { CallRequest } from './call.js';
import type { Tool } from './tool.js';

const TOOL_CALL = z.looseObject({
  method: z.literal('tools/call'),
  params: z.looseObject({ name: z.string(), arguments: z.unknown() }),
});

/** A call of a tool that needs a scope which the caller's access token lacks, but which its client could ask for. */
export interface Unscoped {
  tool: Tool;
  args: unknown;
}

export function unscopedCall(
  body: unknown,
  request: CallRequest,
  tools: readonly Tool[],
): Unscoped | undefined {
  if (!request.challenge) return undefined;
  const { data: call } = TOOL_CALL.safeParse(body);
  const tool = call && tools.find(({ name }) => name === call.params.name);
  if (!tool || !request.selection(tool)) return undefined;
  if (tool.scope === 'any' || request.caller.scopes.includes(tool.scope)) return undefined;
  return { tool, args: call.params.arguments };
}

/** Names what the client has to ask for: what it has, so that it keeps it, and what is missing. */
export function answerChallenge(
  res: ServerResponse,
  { tool }: Unscoped,
  { caller, challenge }: CallRequest,
): void {
  const error = new AppError('forbidden_scope', `${tool.name} needs a token with the scope ${tool.scope}.`, {
    required_scope: tool.scope,
  });
  res.writeHead(403, {
    'content-type': 'application/json',
    'www-authenticate': challenge!([...caller.scopes, tool.scope]),
  });
  res.end(JSON.stringify(error.toBody()));
}
