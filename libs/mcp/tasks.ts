import type { Job } from '@longhaul/persistence';
import { isFinal, type Progress } from '@longhaul/jobs';
import type { CallToolResult, InputRequests, ProtocolError } from '@modelcontextprotocol/server';
import { answerOf, faultOf } from './answer.js';
import type { Services } from './call.js';
import { questionsOf } from './questions.js';
import type { Reader, Tool } from './tool.js';

// How a job looks as a task of the extension io.modelcontextprotocol/tasks, revision 2026-07-28.

export type TaskStatus = 'working' | 'input_required' | 'completed' | 'failed' | 'cancelled';

/** Clients ask often for a young job and less often for one that takes its time. */
const POLL_MIN_MS = 250;
const POLL_MAX_MS = 10_000;
/** Share of its age after which a job is worth another look. */
const POLL_OF_AGE = 0.1;

export type Task = {
  taskId: string;
  status: TaskStatus;
  statusMessage?: string;
  createdAt: string;
  lastUpdatedAt: string;
  /** From creation: a job is kept at least as long. */
  ttlMs: number;
  pollIntervalMs: number;
};

/** With what tasks/get and notifications/tasks say of the state that the task is in. */
export type DetailedTask = Task &
  ({ inputRequests: InputRequests } | { result: Record<string, unknown> } | { error: object } | object);

export function taskOf(job: Job, ttlMs: number): Task {
  return {
    taskId: job.id,
    status: statusOf(job),
    statusMessage: messageOf(job),
    createdAt: job.createdAt.toISOString(),
    lastUpdatedAt: job.updatedAt.toISOString(),
    ttlMs,
    pollIntervalMs: pollInterval(job),
  };
}

/** What tools/call answers instead of a result. */
export const createdTask = (job: Job, ttlMs: number): CallToolResult =>
  ({ resultType: 'task', ...taskOf(job, ttlMs) }) as unknown as CallToolResult;

/** `tool` is the one that made the job: its answer is the task's result. */
export async function detailedTaskOf(
  job: Job,
  tool: Tool,
  services: Services,
  ttlMs: number,
  reader?: Reader,
): Promise<DetailedTask> {
  const task = taskOf(job, ttlMs);
  switch (task.status) {
    case 'input_required':
      return { ...task, inputRequests: await questionsOf(job, services) };
    case 'completed':
      // Inside a task the result has its own discriminator, which clients insist on.
      return {
        ...task,
        result: { resultType: 'complete', ...(await answerOf(tool, job, services, reader)) },
      };
    case 'failed': {
      const { code, message, data } = faultOf(job) as ProtocolError;
      return { ...task, error: { code, message, data } };
    }
    default:
      return task;
  }
}

/** `failed` is for faults in the sense of JSON-RPC only: any other end but a cancel is a result. */
export function statusOf(job: Job): TaskStatus {
  if (job.state === 'awaiting_input') return 'input_required';
  if (job.state === 'cancelled') return 'cancelled';
  if (!isFinal(job.state)) return 'working';
  return faultOf(job) ? 'failed' : 'completed';
}

function messageOf(job: Job): string | undefined {
  if (job.error) return (job.error as { message: string }).message;
  if (job.state === 'queued') return 'Waiting for a worker';
  if (job.state === 'awaiting_input') return 'Waiting for an answer';
  if (isFinal(job.state)) return undefined;
  if (job.cancelRequestedAt) return 'Being cancelled';
  const progress = job.progress as Progress | null;
  return progress?.message ?? (progress ? `${progress.progress} of ${progress.total ?? '?'}` : undefined);
}

function pollInterval(job: Job): number {
  const ageMs = Date.now() - job.createdAt.getTime();
  return Math.round(Math.min(Math.max(ageMs * POLL_OF_AGE, POLL_MIN_MS), POLL_MAX_MS));
}
