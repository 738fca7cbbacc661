import { AppError } from '@longhaul/errors';
import type { GuestSession, Spawned } from './channel.js';
import { type CommandState, isSameProcess, parseOutcome, parseSupervisor } from './command-state.js';
import { SUPERVISE } from './jobrun.js';
import {
  BUSYBOX,
  CANCEL,
  COLLECT,
  controlFile,
  EPOCH_FILE,
  KILL_LEFTOVERS,
  outputFile,
  WRITE_EPOCH,
} from './scripts.js';

/** What the guest did not act on for this long is sent again; it acts once all the same. */
const SEND_AGAIN_MS = 10_000;
/** Whether that is so of what was sent when `performance.now()` was `sentAt`. */
export const isDueAgain = (sentAt: number) => performance.now() - sentAt > SEND_AGAIN_MS;

/** Commands of up to this many bytes fit into an argument. */
export const MAX_COMMAND_BYTES = 64 * 1024;

export interface CommandSpec {
  /** The job's id. A second command under the same id never starts. */
  id: string;
  /** Of the boot for which the command is meant; in any other one it does not start. */
  epoch: string;
  /** For `sh -c`. At most 64 KiB of UTF-8, no NUL. */
  command: string;
  /** The guest ends it by itself after these seconds: TERM, and KILL 5 s later. */
  timeoutSeconds: number;
  /** Absolute. By default the home directory of root. */
  workingDirectory?: string;
  /** How much is kept of stdout, and of stderr. The rest is counted and dropped. */
  streamLimitBytes: number;
}

export interface CommandPoll {
  state: CommandState;
  /** What follows the given offsets, at most `maxBytes` each. */
  stdout: Buffer;
  stderr: Buffer;
}

/** In the session that has started it: undefined while it runs, and once it does not, what there is of it, or that `pollCommand` must say. */
export type ShortCommand = () => Promise<CommandPoll | 'look' | undefined>;

/**
 * Asks the guest to start the command and returns as soon as the request was taken. Safe to repeat, at any time, by
 * anyone: it starts once at most, and not at all in another epoch or after a cancel. The answer asks about a command that is
 * short by one call of the agent, where a poll takes a dozen.
 * Errors: `invalid_arguments` when the spec is out of bounds; those of the session, after any of which it may have started.
 */
export async function dispatchCommand(guest: GuestSession, spec: CommandSpec): Promise<ShortCommand> {
  checkId(spec.id);
  checkId(spec.epoch);
  const { command, workingDirectory = '' } = spec;
  const bytes = Buffer.byteLength(command);
  if (bytes === 0 || bytes > MAX_COMMAND_BYTES)
    throw invalid(`The command must have 1 to ${MAX_COMMAND_BYTES} bytes.`);
  if (!isText(command)) throw invalid('The command must be valid Unicode without NUL.');
  if (workingDirectory && !(isText(workingDirectory) && /^\/.{0,4095}$/.test(workingDirectory))) {
    throw invalid('The working directory must be an absolute path.');
  }
  const args = [
    spec.id,
    spec.epoch,
    count(spec.timeoutSeconds, 1),
    count(spec.streamLimitBytes, 0),
    workingDirectory,
  ];
  const { result } = await spawnScript(guest, SUPERVISE, [...args, command]);
  return async () => {
    if (!result) return (await readOutcome(guest, spec.id)) && 'look';
    const ended = await result();
    return ended && (shortPoll(ended.stdout) ?? 'look');
  };
}

/**
 * One look at a command. When the state is `ended` and both offsets plus what came reach the final sizes, nothing is
 * missing. When it is lost to a reboot, what the disk still has of its output can be read on. Every other poll costs
 * some milliseconds; none starts a process in the guest.
 */
export async function pollCommand(
  guest: GuestSession,
  id: string,
  epoch: string,
  offsets: { stdout: number; stderr: number },
  maxBytes: number,
): Promise<CommandPoll> {
  checkId(id);
  const read = () => readStreams(guest, id, offsets, maxBytes);
  // The outcome before the streams: what it says of their sizes is there by then.
  const [current, outcome] = await Promise.all([readEpoch(guest), readOutcome(guest, id)]);
  const streams = await read();
  // Pulling the plug shortens files as well, by what was not on the disk yet: no revert.
  if (current !== epoch && streams !== 'reverted')
    return { state: { phase: 'lost', reason: 'rebooted' }, ...withoutBlankEnds(streams) };
  if (current !== epoch) return withoutOutput({ phase: 'lost', reason: 'rebooted' });
  if (streams === 'reverted') return withoutOutput({ phase: 'lost', reason: 'reverted' });
  if (outcome) return upToTheEnd(outcome, streams, offsets);
  if (streams.stdout.length + streams.stderr.length > 0) return { state: { phase: 'running' }, ...streams };

  const alive = await supervisorLives(guest, id);
  if (alive === undefined) return withoutOutput({ phase: 'absent' });
  if (alive) return withoutOutput({ phase: 'running' });
  // It may have ended as it should since we looked.
  const last = await readOutcome(guest, id);
  const final = await read();
  if (last && final !== 'reverted') return upToTheEnd(last, final, offsets);
  return withoutOutput({ phase: 'lost', reason: 'supervisor_died' });
}

/**
 * Sends TERM to the command's process group, and KILL to all that it started `graceSeconds` later. Returns at once; poll
 * for the end. Before it started: it never will. After it ended: nothing. Safe to repeat.
 */
export async function cancelCommand(
  guest: GuestSession,
  id: string,
  epoch: string,
  graceSeconds: number,
): Promise<void> {
  checkId(id);
  checkId(epoch);
  await spawnScript(guest, CANCEL, [id, epoch, count(graceSeconds, 0)]);
}

/**
 * Kills at once all that the command started, daemons too, whether or not its supervisor lives. Resolves when nothing
 * is left. Errors: `unavailable` when something does not die.
 */
export async function killLeftovers(guest: GuestSession, id: string): Promise<void> {
  checkId(id);
  const { exitCode } = await guest.run({ path: 'sh', args: ['-c', KILL_LEFTOVERS, 'longhaul', id] }, 12_000);
  if (exitCode !== 0) {
    throw new AppError(
      'unavailable',
      'A process of the command cannot be killed. Try again, or reset the VM.',
    );
  }
}

/**
 * Removes what is kept in the guest of commands that are over, except `keep`: those older than `maxAgeSeconds`, and the
 * oldest ones beyond `maxCount`. Keep what may still be polled or dispatched.
 */
export async function collectCommands(
  guest: GuestSession,
  keep: string[],
  limits: { maxAgeSeconds: number; maxCount: number },
): Promise<void> {
  keep.forEach(checkId);
  const args = [count(limits.maxCount, 0), count(limits.maxAgeSeconds, 0), ...keep];
  await guest.run({ path: 'sh', args: ['-c', COLLECT, 'longhaul', ...args] }, 12_000);
}

/** The value that `writeEpoch` left in this boot of the guest, undefined in a new one. */
export async function readEpoch(guest: GuestSession): Promise<string | undefined> {
  return (await readSmall(guest, EPOCH_FILE))?.trim();
}

/** Names this boot of the guest and makes it ready for commands. */
export async function writeEpoch(guest: GuestSession, epoch: string): Promise<void> {
  checkId(epoch);
  const { exitCode } = await guest.run({ path: 'sh', args: ['-c', WRITE_EPOCH, 'longhaul', epoch] }, 10_000);
  if (exitCode !== 0) {
    throw new AppError(
      'guest_out_of_space',
      'The VM cannot write to /run or /var/lib. Free some space there.',
    );
  }
}

/** Starts a script in a session of its own, by busybox where the guest has one. */
async function spawnScript(guest: GuestSession, script: string, args: string[]): Promise<Spawned> {
  const shell = ['sh', '-c', script, 'longhaul', ...args];
  try {
    return await guest.spawn({ path: BUSYBOX, args: ['setsid', BUSYBOX, ...shell] });
  } catch (error) {
    // It did not start, so that this cannot be the second time.
    if (!(error instanceof AppError && error.code === 'guest_missing_dependency')) throw error;
    return guest.spawn({ path: 'setsid', args: shell });
  }
}

/** What the supervisor of a short command prints: all of its stdout and of its stderr, then the outcome. */
function shortPoll(printed: Buffer): CommandPoll | undefined {
  const end = printed.lastIndexOf('ended ');
  const state = end < 0 ? undefined : outcomeIn(printed.toString('latin1', end));
  if (state?.phase !== 'ended' || end !== state.stdoutBytes + state.stderrBytes) return undefined;
  const { stdoutBytes } = state;
  return {
    state,
    stdout: printed.subarray(0, stdoutBytes),
    stderr: printed.subarray(stdoutBytes, end),
  };
}

type Streams = { stdout: Buffer; stderr: Buffer };

function withoutOutput(state: CommandState): CommandPoll {
  return { state, stdout: Buffer.alloc(0), stderr: Buffer.alloc(0) };
}

/** Pulling the plug also leaves files longer than what of them was on the disk: the rest reads as NULs that nobody has printed. */
function withoutBlankEnds({ stdout, stderr }: Streams): Streams {
  const cut = (data: Buffer) => data.subarray(0, data.findLastIndex((byte) => byte !== 0) + 1);
  return { stdout: cut(stdout), stderr: cut(stderr) };
}

/** Daemons that the command left may write on behind its end; and a file that stays too short will never be complete. */
function upToTheEnd(
  state: CommandState,
  streams: Streams,
  offsets: { stdout: number; stderr: number },
): CommandPoll {
  if (state.phase !== 'ended') return withoutOutput(state);
  const left = { stdout: state.stdoutBytes - offsets.stdout, stderr: state.stderrBytes - offsets.stderr };
  for (const name of ['stdout', 'stderr'] as const) {
    if (left[name] < 0 || (left[name] > 0 && streams[name].length === 0)) {
      return withoutOutput({ phase: 'lost', reason: 'reverted' });
    }
  }
  return {
    state,
    stdout: streams.stdout.subarray(0, left.stdout),
    stderr: streams.stderr.subarray(0, left.stderr),
  };
}

async function readStreams(
  guest: GuestSession,
  id: string,
  offsets: { stdout: number; stderr: number },
  maxBytes: number,
): Promise<Streams | 'reverted'> {
  // From one byte before the offset, which is there unless the file got shorter: a snapshot of the disk came back.
  const read = async (name: 'stdout' | 'stderr') => {
    const known = Math.min(1, offsets[name]);
    const found = await guest.readFile(outputFile(id, name), offsets[name] - known, maxBytes + known);
    return found && found.data.length >= known
      ? found.data.subarray(known)
      : known
        ? undefined
        : Buffer.alloc(0);
  };
  const [stdout, stderr] = await Promise.all([read('stdout'), read('stderr')]);
  return stdout && stderr ? { stdout, stderr } : 'reverted';
}

async function readOutcome(guest: GuestSession, id: string): Promise<CommandState | undefined> {
  const text = await readSmall(guest, controlFile(id, 'exit'));
  return text === undefined ? undefined : outcomeIn(text);
}

function outcomeIn(text: string): CommandState | undefined {
  try {
    return parseOutcome(text);
  } catch {
    return { phase: 'lost', reason: 'supervisor_died' };
  }
}

/** undefined when the command has no supervisor yet. */
async function supervisorLives(guest: GuestSession, id: string): Promise<boolean | undefined> {
  const record = parseSupervisor((await readSmall(guest, controlFile(id, 'supervisor'))) ?? '');
  return record && isSameProcess(await readSmall(guest, `/proc/${record.pid}/stat`), record.startTime);
}

async function readSmall(guest: GuestSession, path: string): Promise<string | undefined> {
  return (await guest.readFile(path, 0, 4096))?.data.toString('latin1');
}

/** Ids become parts of paths and of shell patterns. */
function checkId(id: string): void {
  if (!/^[0-9a-f-]{8,64}$/.test(id)) throw new Error('Not an id');
}

function count(value: number, least: number): string {
  if (!Number.isSafeInteger(value) || value < least)
    throw invalid(`Not a whole number of at least ${least}: ${value}`);
  return String(value);
}

function isText(text: string): boolean {
  return !text.includes('\0') && text.isWellFormed();
}

function invalid(message: string): AppError {
  return new AppError('invalid_arguments', message);
}
