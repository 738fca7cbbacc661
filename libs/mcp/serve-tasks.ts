import { AppError } from '@longhaul/errors';
import type { Job } from '@longhaul/persistence';
import { type Result, type Server, type ServerContext } from '@modelcontextprotocol/server';
import { z } from 'zod';
import { asProtocolError, tasksMissing } from './answer.js';
import { actorOfRequest, type CallRequest, type Services } from './call.js';
import type { CallPipeline } from './pipeline.js';
import { answerQuestions } from './questions.js';
import { detailedTaskOf } from './tasks.js';
import type { Tool } from './tool.js';

export const taskParams = z.looseObject({ taskId: z.string().min(1).max(128) });

/** The methods of the tasks extension (revision 2026-07-28). Each goes through the gates of every call. */
export function serveTasks(
  server: Server,
  pipeline: CallPipeline,
  tools: ReadonlyMap<string, Tool>,
  requestOf: (context: ServerContext) => CallRequest,
  ttlMs: number,
): void {
  const serve = (method: string, effect: 'reads' | 'changes', act: Act) =>
    server.setRequestHandler(method, { params: taskParams }, async ({ taskId }, context) => {
      const request = requestOf(context);
      if (!request.client?.tasks) throw tasksMissing();
      const bound = (job: Job, tool: Tool, services: Services) =>
        act({ job, tool, services, request, context });
      return pipeline.runOnTask(method, taskId, request, tools, effect, bound).catch(asProtocolError);
    });

  serve('tasks/get', 'reads', ({ job, tool, services, request }) =>
    detailedTaskOf(job, tool, services, ttlMs, request.caller),
  );
  serve('tasks/cancel', 'changes', async ({ job, services, request }) => {
    await services.jobs.cancel(job.id, actorOfRequest(request));
    return {};
  });
  serve('tasks/update', 'changes', async ({ job, services, request, context }) => {
    const { inputResponses, droppedInputResponseKeys: dropped = [] } = context.mcpReq;
    if (!inputResponses) throw new AppError('invalid_arguments', 'inputResponses: missing');
    // The SDK leaves out what is no object; to us it is an answer of the wrong form.
    const responses = { ...Object.fromEntries(dropped.map((key) => [key, null])), ...inputResponses };
    await answerQuestions(job, responses, services, actorOfRequest(request));
    return {};
  });
}

type Act = (task: {
  job: Job;
  tool: Tool;
  services: Services;
  request: CallRequest;
  context: ServerContext;
}) => Promise<Result>;
