import type { ServerResponse } from 'node:http';
import { SCOPES } from '@longhaul/access';
import { toAppError, type AppError } from '@longhaul/errors';
import { z } from 'zod';
import type { CallRequest } from './call.js';
import { hasScope, scopeMissing } from './gates.js';
import type { CallPipeline } from './pipeline.js';
import type { Catalog, Tool } from './tool.js';

const TOOL_CALL = z.looseObject({
  method: z.literal('tools/call'),
  params: z.looseObject({ name: z.string(), arguments: z.unknown() }),
});
const READING = z.looseObject({
  method: z.literal('resources/read'),
  params: z.looseObject({ uri: z.string() }),
});
const ON_TASK = z.looseObject({
  method: z.string().regex(/^tasks\/\w+$/),
  params: z.looseObject({ taskId: z.string() }),
});

/**
 * Refuses, and audits, what needs a scope that the caller's access token lacks but which its client could ask for. Undefined:
 * it is no such request. Prompts need no scope, and what is typed must not send a person to a login: completion offers nothing.
 */
export async function refuseUnscoped(
  body: unknown,
  request: CallRequest,
  catalog: Pick<Catalog, 'tools' | 'resources'>,
  pipeline: CallPipeline,
): Promise<AppError | undefined> {
  const { caller, challenge, selection } = request;
  if (!challenge || SCOPES.every((scope) => caller.scopes.includes(scope))) return undefined;
  const use = useOf(body, catalog);
  if (use) {
    if (!selection(use.tool) || hasScope(use.tool, caller)) return undefined;
    await pipeline.run(use.tool, use.args, request);
    return scopeMissing(use.tool);
  }
  const { data: task } = ON_TASK.safeParse(body);
  return task && refuseTask(task.method, task.params.taskId, request, pipeline);
}

/** Names what the client has to ask for: what it has, so that it keeps it, and what is missing. */
export function answerChallenge(
  res: ServerResponse,
  error: AppError,
  { caller, challenge }: CallRequest,
): void {
  res.writeHead(403, {
    'content-type': 'application/json',
    'www-authenticate': challenge!([...caller.scopes, String(error.details?.required_scope)]),
  });
  res.end(JSON.stringify(error.toBody()));
}

/** The tool that a request is to run, by its name or by what it reads for. */
function useOf(
  body: unknown,
  { tools, resources }: Pick<Catalog, 'tools' | 'resources'>,
): { tool: Tool; args: unknown } | undefined {
  const { data: call } = TOOL_CALL.safeParse(body);
  const tool = call && tools.find(({ name }) => name === call.params.name);
  if (tool) return { tool, args: call.params.arguments };
  const { data: reading } = READING.safeParse(body);
  for (const { definition, match } of reading ? resources : []) {
    const variables = match(reading!.params.uri);
    if (variables) return { tool: definition.tool, args: { ...definition.args, ...variables } };
  }
  return undefined;
}

async function refuseTask(
  method: string,
  taskId: string,
  request: CallRequest,
  pipeline: CallPipeline,
): Promise<AppError | undefined> {
  const looked = pipeline.services.jobs.find(taskId, request.caller);
  const error = await looked.then(() => undefined, toAppError);
  if (error?.code !== 'forbidden_scope') return undefined;
  await pipeline.refuse(method, { taskId }, request, error).catch(() => undefined);
  return error;
}
