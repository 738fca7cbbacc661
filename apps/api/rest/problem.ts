import { STATUS_CODES } from 'node:http';
import type { AppError, ErrorCode } from '@longhaul/errors';
import type { FastifyReply } from 'fastify';
import { z } from 'zod';

/** The status that each error has over REST; a new code does not compile without one. */
const STATUS: Record<ErrorCode, number> = {
  unauthenticated: 401,
  forbidden_scope: 403,
  forbidden_role: 403,
  forbidden_staff: 403,
  forbidden_host: 403,
  forbidden_origin: 403,
  invalid_arguments: 400,
  body_too_large: 413,
  unsupported_media_type: 415,
  unknown_tool: 404,
  not_found: 404,
  vm_not_found: 404,
  vm_ambiguous: 409,
  vm_state_blocked: 403,
  vm_busy: 409,
  vm_command_in_progress: 409,
  mcp_exec_disabled: 403,
  switched_off: 503,
  job_not_found: 404,
  job_not_retryable: 409,
  log_damaged: 500,
  conflict: 409,
  idempotency_key_reused: 409,
  rate_limited: 429,
  quota_exceeded: 403,
  confirmation_required: 409,
  client_capability_missing: 400,
  request_state_invalid: 400,
  image_not_found: 404,
  ssh_key_not_found: 404,
  artifact_not_found: 404,
  artifact_expired: 409,
  artifact_size_mismatch: 409,
  artifact_not_uploaded: 409,
  artifact_sha_mismatch: 409,
  path_denied: 403,
  path_not_found: 404,
  path_is_directory: 409,
  path_not_a_directory: 409,
  path_not_a_file: 409,
  guest_read_only: 409,
  guest_missing_dependency: 409,
  guest_unreachable: 503,
  guest_rebooted: 409,
  guest_out_of_space: 507,
  command_not_started: 409,
  host_unreachable: 503,
  queue_timeout: 503,
  input_timeout: 409,
  outcome_unknown: 409,
  unavailable: 503,
  internal: 500,
};

/** Of RFC 9457. `type` is the default one, so `title` is the status in words; `code` is what a program decides by. */
export const problemSchema = z.object({
  type: z.literal('about:blank'),
  title: z.string(),
  status: z.int(),
  detail: z.string().describe('What went wrong and what to do'),
  code: z.enum(Object.keys(STATUS) as [ErrorCode, ...ErrorCode[]]).describe('Never changes its meaning'),
  retryable: z.boolean().describe('Whether the same request can succeed later'),
  details: z.record(z.string(), z.unknown()).optional(),
  request_id: z.string(),
});

export async function sendProblem(reply: FastifyReply, error: AppError): Promise<FastifyReply> {
  const { message: detail, ...rest } = error.toBody();
  const status = STATUS[error.code];
  const retryAfter = error.details?.retry_after;
  if (typeof retryAfter === 'number') reply.header('retry-after', String(Math.ceil(retryAfter)));
  const problem: z.input<typeof problemSchema> = {
    type: 'about:blank',
    title: STATUS_CODES[status]!,
    status,
    detail,
    ...rest,
    request_id: reply.request.id,
  };
  return reply.code(status).type('application/problem+json').send(JSON.stringify(problem));
}
