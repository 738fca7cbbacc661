export type CommandState =
  /** Nothing of it is there, in the expected epoch: not started. Dispatching it (again) is safe. */
  | { phase: 'absent' }
  | { phase: 'running' }
  /** It never ran and never will. */
  | { phase: 'refused'; reason: RefusalReason }
  | CommandEnd
  /** It ran, or may have, and nobody can say how it ended. */
  | { phase: 'lost'; reason: 'rebooted' | 'reverted' | 'supervisor_died' };

export type RefusalReason = 'tombstone' | 'no_space' | 'bad_working_directory';

export interface CommandEnd {
  phase: 'ended';
  /** 0–255; 128 + n when signal n ended it, or when it chose to say so. */
  exitCode: number;
  signal?: number;
  reason: 'exit' | 'timeout' | 'cancel';
  /** Final size of what is kept of the stream. */
  stdoutBytes: number;
  stderrBytes: number;
  /** What came beyond the limit, or when the disk was full. */
  stdoutDropped: number;
  stderrDropped: number;
  durationMs: number;
}

const LAST_SIGNAL = 64;

/** What the file `exit` says; undefined while it is not complete. Throws RangeError when it says nonsense. */
export function parseOutcome(text: string): CommandState | undefined {
  if (!text.endsWith(' .\n')) return undefined;
  const refused = /^refused (tombstone|no_space|bad_working_directory) \.\n$/.exec(text);
  if (refused) return { phase: 'refused', reason: refused[1] as RefusalReason };

  const ended = /^ended (\d{1,3}) (exit|timeout|cancel) (\d+) (\d+) (\d+) (\d+) (\d+) \.\n$/.exec(text);
  if (!ended) throw new RangeError('no outcome of a command');
  const [, code, reason, ...rest] = ended;
  const [stdoutBytes = 0, stdoutDropped = 0, stderrBytes = 0, stderrDropped = 0, durationMs = 0] =
    rest.map(Number);
  const exitCode = Number(code);
  const sane = [stdoutBytes, stdoutDropped, stderrBytes, stderrDropped, durationMs].every(
    Number.isSafeInteger,
  );
  if (exitCode > 255 || !sane) throw new RangeError('no outcome of a command');
  return {
    phase: 'ended',
    exitCode,
    ...(exitCode > 128 && exitCode <= 128 + LAST_SIGNAL && { signal: exitCode - 128 }),
    reason: reason as CommandEnd['reason'],
    stdoutBytes,
    stderrBytes,
    stdoutDropped,
    stderrDropped,
    durationMs,
  };
}

/** What the file `supervisor` says: a process, named for ever. undefined while it is not complete or nonsense. */
export function parseSupervisor(text: string): { pid: number; startTime: string } | undefined {
  const match = /^(\d{1,10}) (\d{1,20}) \.\n$/.exec(text);
  return match ? { pid: Number(match[1]), startTime: match[2]! } : undefined;
}

/** Whether /proc/PID/stat, undefined when there is none, is that of a living process that began at `startTime`. */
export function isSameProcess(stat: string | undefined, startTime: string): boolean {
  const fields = stat?.slice(stat.lastIndexOf(') ') + 2).split(' ') ?? [];
  return fields[19] === startTime && fields[0] !== 'Z' && fields[0] !== 'X';
}
