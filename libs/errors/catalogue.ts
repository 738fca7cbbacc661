/**
 * Every code that a client, an operator or a handler can meet. A code never changes its meaning; removing one is a
 * breaking change. `retryable` says whether the same call can succeed later without being changed.
 */
export const ERROR_CODES = {
  unauthenticated: { retryable: false },
  forbidden_scope: { retryable: false },
  forbidden_role: { retryable: false },
  forbidden_host: { retryable: false },
  forbidden_origin: { retryable: false },
  invalid_arguments: { retryable: false },
  unknown_tool: { retryable: false },
  vm_not_found: { retryable: false },
  vm_ambiguous: { retryable: false },
  vm_state_blocked: { retryable: true },
  vm_busy: { retryable: true },
  vm_command_in_progress: { retryable: true },
  mcp_exec_disabled: { retryable: false },
  switched_off: { retryable: true },
  job_not_found: { retryable: false },
  idempotency_key_reused: { retryable: false },
  rate_limited: { retryable: true },
  confirmation_required: { retryable: false },
  client_capability_missing: { retryable: false },
  request_state_invalid: { retryable: false },
  artifact_not_uploaded: { retryable: false },
  artifact_sha_mismatch: { retryable: false },
  guest_missing_dependency: { retryable: false },
  guest_unreachable: { retryable: true },
  guest_rebooted: { retryable: false },
  guest_out_of_space: { retryable: true },
  command_not_started: { retryable: true },
  host_unreachable: { retryable: true },
  queue_timeout: { retryable: true },
  input_timeout: { retryable: true },
  outcome_unknown: { retryable: false },
  unavailable: { retryable: true },
  internal: { retryable: true },
} as const satisfies Record<string, { retryable: boolean }>;

export type ErrorCode = keyof typeof ERROR_CODES;
