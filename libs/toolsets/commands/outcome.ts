import { AppError, type ErrorCode } from '@longhaul/errors';
import type { CommandState } from '@longhaul/guest';
import type { Outcome } from '@longhaul/jobs';
import type { VmCommandResult } from './vm-command.job.js';

const REFUSED: Record<'no_space' | 'bad_working_directory', [ErrorCode, string]> = {
  no_space: [
    'guest_out_of_space',
    "The VM's disk is too full to keep the command's output; free some space.",
  ],
  bad_working_directory: ['invalid_arguments', 'working_directory is not a directory in the VM.'],
};

/** The guest ends a command itself when its time is over; when it has not after this, we do, and then give up. */
export const OVERTIME_MS = 30_000;
/** A guest that was never reached fails the job after this. */
const NEVER_REACHED_MS = 60_000;
/** One that may have begun is waited for as long as the command may take, and then as long as for a file: it may only be busy. */
const SILENT_MS = 120_000;

/**
 * How the job ends by what the guest says, or undefined while the command goes on. A kill that nobody asked for (`cancelled`)
 * is one for want of an end, perhaps of an attempt before.
 */
export function outcomeOf(
  state: CommandState,
  { confirmed, cancelled }: { confirmed: boolean; cancelled: boolean },
): Outcome | undefined {
  switch (state.phase) {
    case 'running':
      return undefined;
    case 'absent':
      return confirmed ? outcomeUnknown('The VM has lost all trace of the command.', true) : undefined;
    case 'refused': {
      // The tombstone of a kill that came before the start.
      if (state.reason === 'tombstone') return { state: cancelled ? 'cancelled' : 'timed_out' };
      const [code, message] = REFUSED[state.reason];
      return { state: 'failed', error: new AppError(code, message).toBody() };
    }
    case 'lost':
      // A new boot has nothing left of it; after a revert or without its supervisor, something may still run.
      return state.reason === 'rebooted'
        ? { ...outcomeUnknown('', false), error: rebooted() }
        : outcomeUnknown('The VM was reverted or lost track of the command.', true);
    case 'ended': {
      const result: VmCommandResult = {
        exit_code: state.exitCode,
        ...(state.signal !== undefined && { signal: state.signal }),
        duration_ms: state.durationMs,
      };
      // What ended by itself before a kill keeps its real end.
      if (state.reason === 'exit') return { state: state.exitCode === 0 ? 'succeeded' : 'failed', result };
      return { state: state.reason === 'cancel' && cancelled ? 'cancelled' : 'timed_out', result };
    }
  }
}

/**
 * How the job ends while the guest does not answer, or undefined while it is waited for. `sent`: it may have got the command.
 * Throws `guest_unreachable` when it never did and is not expected to answer any more.
 */
export function outcomeOfSilence(known: {
  off: boolean;
  sent: boolean;
  silentMs: number;
  timeoutSeconds: number;
}): Outcome | undefined {
  const { off, sent, silentMs, timeoutSeconds } = known;
  if (!sent && (off || silentMs > NEVER_REACHED_MS)) {
    throw new AppError(
      'guest_unreachable',
      'The VM did not answer; the command was not started. Is the VM running?',
    );
  }
  if (!sent) return undefined;
  if (off) return outcomeUnknown('The VM was switched off under the command.', false);
  if (silentMs > timeoutSeconds * 1000 + SILENT_MS) {
    return outcomeUnknown('The VM stopped answering; nobody knows how the command ended.', true);
  }
  return undefined;
}

export function outcomeUnknown(why: string, quarantine: boolean): Outcome {
  const message = `${why} Look in the VM before you run it again.`;
  return { state: 'unknown', quarantine, error: new AppError('outcome_unknown', message).toBody() };
}

const rebooted = () =>
  new AppError(
    'guest_rebooted',
    'The VM was reset or rebooted under the command. Look in the VM before you run it again.',
  ).toBody();
