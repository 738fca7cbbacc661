import type { AppError } from '@longhaul/errors';
import type { ProtocolViolation } from './answers.js';

/** A way to call the guest agent, open for one session. */
export interface AgentCalls {
  /** The most data that one call should carry, before it is encoded. */
  readonly maxDataBytes: number;
  /**
   * The agent's answer. Calls may overlap; they are done in order. Errors: AgentRefusal when the agent answered an error,
   * else `guest_unreachable`, after which no call succeeds.
   */
  call(command: string, args?: Record<string, unknown>): Promise<unknown>;
  /** Ends the session because of what the caller found in an answer. */
  violated(violation: ProtocolViolation): AppError;
  close(): void;
}
