import type { ServerResponse } from 'node:http';
import { z } from 'zod';
import type { CallRequest } from './call.js';
import { hasScope, scopeMissing } from './gates.js';
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
  if (hasScope(tool, request.caller)) return undefined;
  return { tool, args: call.params.arguments };
}

/** Names what the client has to ask for: what it has, so that it keeps it, and what is missing. */
export function answerChallenge(
  res: ServerResponse,
  { tool }: Unscoped,
  { caller, challenge }: CallRequest,
): void {
  res.writeHead(403, {
    'content-type': 'application/json',
    'www-authenticate': challenge!([...caller.scopes, tool.scope]),
  });
  res.end(JSON.stringify(scopeMissing(tool).toBody()));
}
