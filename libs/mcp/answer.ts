import { AppError, type ErrorBody, type ErrorCode } from '@longhaul/errors';
import { isFinal } from '@longhaul/jobs';
import type { Job } from '@longhaul/persistence';
import {
  MissingRequiredClientCapabilityError,
  ProtocolError,
  ProtocolErrorCode,
  type CallToolResult,
} from '@modelcontextprotocol/server';
import type { Services } from './call.js';
import type { Reader, Tool } from './tool.js';

/** The extension that makes tasks of jobs (revision 2026-07-28). */
export const TASKS_EXTENSION = 'io.modelcontextprotocol/tasks';

export function toResult(tool: Tool, output: Record<string, unknown>): CallToolResult {
  return { content: tool.content(output), structuredContent: output };
}

/**
 * An error is JSON in the text and nothing else: clients of the 2025-11-25 line check structured content against the
 * tool's output schema even when the result is an error. Throws for what the protocol has an error of its own for.
 */
export function toError(error: AppError): CallToolResult {
  if (PROTOCOL_ERRORS.has(error.code)) throw toProtocolError(error);
  const text = JSON.stringify({ error: error.toBody() });
  return { isError: true, content: [{ type: 'text', text }] };
}

/**
 * What a tool answers about its job, the same to who waited and to who asks for the task. A job that ended other than well is
 * a result with `isError`. Throws ProtocolError where the job met a fault of ours.
 */
export async function answerOf(
  tool: Tool,
  job: Job,
  services: Services,
  reader?: Reader,
): Promise<CallToolResult> {
  const fault = faultOf(job);
  if (fault) throw fault;
  if (!('answer' in tool.work)) throw new Error(`${tool.name} makes no jobs`);
  const result = toResult(tool, await tool.work.answer(job, services, reader));
  return isFinal(job.state) && job.state !== 'succeeded' ? { ...result, isError: true } : result;
}

/** The JSON-RPC error of a job that ended because of a fault of ours, which no handler foresaw. */
export function faultOf(job: Job): ProtocolError | undefined {
  const error = job.error as { code: string; message: string; details?: object } | null;
  if (job.state !== 'failed' || error?.code !== 'internal') return undefined;
  return new ProtocolError(ProtocolErrorCode.InternalError, error.message, error);
}

const NOT_OF_THE_CALLER = new Set<ErrorCode>(['internal', 'unavailable', 'rate_limited', 'switched_off']);

/** Nothing about the request is wrong: another time it may do. */
export const isNotOfTheCaller = ({ code }: Pick<ErrorBody, 'code'>) => NOT_OF_THE_CALLER.has(code);

const PROTOCOL_ERRORS = new Set<string>(['client_capability_missing', 'request_state_invalid']);

/** An error as JSON-RPC tells it, with the stable code in its data. */
export function toProtocolError(error: AppError): ProtocolError {
  return error.code === 'client_capability_missing' ? tasksMissing() : protocolErrorOf(error.toBody());
}

/** The same of an error that has become an answer. */
export function protocolErrorOf(body: Pick<ErrorBody, 'code' | 'message'>): ProtocolError {
  const { InternalError, InvalidParams } = ProtocolErrorCode;
  return new ProtocolError(isNotOfTheCaller(body) ? InternalError : InvalidParams, body.message, body);
}

/** For `catch` at the edge to the SDK. */
export function asProtocolError(thrown: unknown): never {
  throw thrown instanceof AppError ? toProtocolError(thrown) : thrown;
}

/** What a client is told that does not declare the tasks extension where it is needed. */
export function tasksMissing(): ProtocolError {
  const requiredCapabilities = { extensions: { [TASKS_EXTENSION]: {} } };
  return new MissingRequiredClientCapabilityError({ requiredCapabilities });
}
