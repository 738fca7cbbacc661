import { setTimeout as pause } from 'node:timers/promises';
import { AppError, type ErrorCode } from '@longhaul/errors';
import type { GuestChannel, GuestSession } from './channel.js';
import type { CommandState } from './command-state.js';
import { cancelCommand, dispatchCommand, isDueAgain, killLeftovers, pollCommand } from './command.js';
import { EXIT, INSTALL, KEEP_URL, partFile, PUSH } from './install-script.js';
import { controlFile, quote } from './scripts.js';

/** What is to be in the guest afterwards. */
export interface FileToInstall {
  /** The job's: letters of a UUID. Whoever goes on under the same id finds what was done before. */
  id: string;
  /** Absolute, without `.`, `..`, empty parts or NUL, not ending in a slash. */
  path: string;
  sizeBytes: number;
  /** 64 hexadecimal digits in lower case. */
  sha256: string;
  /** Octal without leading zeros, such as `644`. */
  mode: string;
  /** `user:group`, as names or numbers. */
  owner: string;
  /** Whether what is replaced stays as `<path>.longhaul-backup`. */
  backup: boolean;
}

export interface FileSource {
  /** Where the guest can get it; without it, or when the guest fails to, the file is pushed through the channel. */
  url?: string;
  /** All of the bytes asked for; fewer only at the end. */
  read(offset: number, length: number): Promise<Buffer>;
}

export interface InstallOptions {
  /** The epoch of the guest's boot. Called before anything is changed in it, and again after it has booted anew. */
  begin(guest: GuestSession): Promise<string>;
  /** Called while the guest does not answer; throws when there is no hope that it will. */
  unreachable(): Promise<void>;
  /** Bytes that have reached the guest; never fewer than before. */
  progress(bytes: number): void;
  /** Ends this at once with its reason; somebody else may go on. */
  stop: AbortSignal;
  /** Ends the installation unless it is done already. */
  cancel: AbortSignal;
}

export type InstallEnd = 'installed' | 'unchanged' | 'cancelled' | 'timed_out';

/** Of the program in the guest. A file that comes slower than about 250 kB/s does not make it. */
const GUEST_SECONDS = 1_200;
/** A guest that was reset needs a while to come back. */
const PATIENCE_MS = 120_000;
const PUSH_BLOCK = 65_536;
const PUSH_CHUNK = 16 * PUSH_BLOCK;
/** Others wait for the guest meanwhile. */
const SESSION_MS = 1_000;
const POLL_MS = 100;
const MAX_RUNS = 6;

const SAID: Record<number, [ErrorCode, (what: string) => string]> = {
  [EXIT.mismatch]: [
    'artifact_sha_mismatch',
    (sum) => `What reached the VM has the SHA-256 ${sum}. Nothing was changed; upload the file again.`,
  ],
  [EXIT.missingTool]: ['guest_missing_dependency', (tool) => `The VM lacks the program ${tool}. Install it.`],
  [EXIT.denied]: ['path_denied', (path) => `Longhaul installs nothing at ${path}. Choose another path.`],
  [EXIT.isDirectory]: [
    'path_is_directory',
    (what) => `There is a directory: ${what}. Name the file in it as well.`,
  ],
  [EXIT.notADirectory]: ['path_not_a_directory', (what) => `A part of the path is no directory: ${what}`],
  [EXIT.noSpace]: ['guest_out_of_space', (what) => `The VM has no space left for the file: ${what}`],
  [EXIT.readOnly]: ['guest_read_only', (what) => `The VM cannot write there: ${what}`],
  [EXIT.invalid]: [
    'invalid_arguments',
    (what) => `The VM does not accept destination_path or owner: ${what}`,
  ],
  [EXIT.notAFile]: ['path_not_a_file', (path) => `${path} is there and no regular file; it stays as it is.`],
};

/**
 * Puts a file into the guest: all of it or nothing, however often this is repeated and wherever it is cut off. Holds the
 * channel for about a second at a time.
 * Errors: those of the table above; `guest_unreachable` when the guest stays silent or keeps booting; those of `source`.
 */
export function installFile(
  channel: GuestChannel,
  file: FileToInstall,
  source: FileSource,
  options: InstallOptions,
): Promise<InstallEnd> {
  return new Installation(channel, file, source, options).run();
}

/** Kills what an installation has left running in the guest. Errors: those of killLeftovers. */
export async function stopInstallation(guest: GuestSession, id: string): Promise<void> {
  for (let run = 0; run < MAX_RUNS; run++) await killLeftovers(guest, runId(id, run));
}

/** Each run of the program in the guest is a command of its own, under the same id for whoever goes on after us. */
const runId = (id: string, run: number) => `${id}-${run}`;

class Installation {
  private runs = 0;
  private answeredAt = performance.now();
  private epoch = '';
  private arrived = 0;

  constructor(
    private readonly channel: GuestChannel,
    private readonly file: FileToInstall,
    private readonly source: FileSource,
    private readonly options: InstallOptions,
  ) {}

  async run(): Promise<InstallEnd> {
    let isPushed = this.source.url === undefined;
    while (this.runs < MAX_RUNS) {
      const state = await this.runOnce(isPushed);
      if (state === 'cancelled') return state;
      this.runs += 1;
      // Booted anew, or somebody killed the program.
      if (state.phase === 'lost') continue;
      if (state.phase === 'refused') {
        if (state.reason === 'no_space')
          throw said(EXIT.noSpace, 'its /var/lib/longhaul is on a full file system');
        return 'cancelled';
      }
      if (state.phase !== 'ended') throw new Error(`not the end of an installation: ${state.phase}`);
      if (state.reason === 'timeout') return 'timed_out';
      if (state.exitCode === 0) return state.text === 'unchanged' ? 'unchanged' : 'installed';
      if (state.reason === 'cancel') return 'cancelled';
      if (state.exitCode === EXIT.notDownloaded && !isPushed) isPushed = true;
      else throw said(state.exitCode, state.text);
    }
    throw unreachable('The VM was reset again and again under the installation.');
  }

  private async runOnce(isPushed: boolean): Promise<RunState> {
    const id = runId(this.file.id, this.runs);
    this.epoch = await this.reach((guest) => this.options.begin(guest));
    const part = isPushed ? partFile(`${this.file.id}-${this.epoch}`) : '';
    if (part && (await this.look(id)).phase === 'absent' && !(await this.push(part))) return 'cancelled';
    if (this.options.cancel.aborted && (await this.look(id)).phase === 'absent') return 'cancelled';

    // Either may be lost with the agent, after it was taken.
    let [dispatchedAt, cancelledAt] = [-Infinity, -Infinity];
    const giveUpAt = performance.now() + PATIENCE_MS;
    for (;;) {
      if (isDueAgain(dispatchedAt)) {
        await this.reach((guest) => this.dispatch(guest, id, part));
        dispatchedAt = performance.now();
      }
      const state = await this.look(id);
      if (!['running', 'absent'].includes(state.phase)) return state;
      if (state.phase === 'running') dispatchedAt = Infinity;
      else if (performance.now() > giveUpAt)
        throw unreachable('The VM does not begin with the installation.');
      if (this.options.cancel.aborted && isDueAgain(cancelledAt)) {
        await this.reach((guest) => cancelCommand(guest, id, this.epoch, 5));
        cancelledAt = performance.now();
      }
      await pause(POLL_MS, undefined, { signal: this.options.stop });
    }
  }

  private async dispatch(guest: GuestSession, id: string, part: string): Promise<void> {
    const { path, mode, owner, sizeBytes, sha256, backup } = this.file;
    if (!part) {
      const stdin = Buffer.from(`url = "${this.source.url!.replace(/["\\]/g, '\\$&')}"\n`);
      await guest.run({ path: 'sh', args: ['-c', KEEP_URL, 'longhaul', id], stdin }, 10_000);
    }
    const args = [id, path, mode, owner, String(sizeBytes), sha256, backup ? 'yes' : '', part];
    const command = `set -- ${args.map(quote).join(' ')}\n${INSTALL}`;
    const streamLimitBytes = 8_192;
    await dispatchCommand(guest, {
      id,
      epoch: this.epoch,
      command,
      timeoutSeconds: GUEST_SECONDS,
      streamLimitBytes,
    });
  }

  /** How the program stands; asks for a while, so that a short one costs one session. */
  private look(id: string): Promise<Exclude<RunState, 'cancelled'>> {
    return this.reach(async (guest) => {
      const until = performance.now() + SESSION_MS / 2;
      for (;;) {
        const { state, stdout } = await pollCommand(guest, id, this.epoch, { stdout: 0, stderr: 0 }, 8_192);
        const text = printable(stdout);
        if (state.phase !== 'running' || performance.now() > until) {
          if (state.phase === 'running') this.tell(await written(guest, id));
          return { ...state, text };
        }
        await pause(POLL_MS / 2, undefined, { signal: this.options.stop });
      }
    });
  }

  /** Sends what the guest does not have yet, each session about a second. False when a cancel came in between. */
  private async push(part: string): Promise<boolean> {
    let offset = await this.reach((guest) => pushed(guest, part));
    for (let isLast = false; !isLast;) {
      if (this.options.cancel.aborted) return false;
      // Read before the session begins: the store may be slow.
      const chunks = await this.source.read(offset, 4 * PUSH_CHUNK);
      offset = await this.reach(async (guest) => {
        const until = performance.now() + SESSION_MS;
        let sent = 0;
        do {
          const chunk = chunks.subarray(sent, sent + PUSH_CHUNK);
          await pushed(guest, part, offset + sent, chunk);
          sent += chunk.length;
        } while (sent < chunks.length && performance.now() < until);
        isLast = sent === chunks.length && chunks.length < 4 * PUSH_CHUNK;
        return offset + sent;
      });
      this.tell(offset);
    }
    return true;
  }

  /** What `use` answers, however often the guest has to be asked: all that is done here may be done again. */
  private async reach<T>(use: (guest: GuestSession) => Promise<T>): Promise<T> {
    const { stop } = this.options;
    for (;;) {
      stop.throwIfAborted();
      try {
        const answer = await this.channel.session(use, { signal: stop });
        this.answeredAt = performance.now();
        return answer;
      } catch (error) {
        stop.throwIfAborted();
        if (!(error instanceof AppError && ['guest_unreachable', 'unavailable'].includes(error.code)))
          throw error;
        await this.options.unreachable();
        if (performance.now() - this.answeredAt > PATIENCE_MS) throw unreachable('The VM stopped answering.');
        await pause(500, undefined, { signal: stop });
      }
    }
  }

  private tell(bytes: number): void {
    this.arrived = Math.min(Math.max(this.arrived, bytes), this.file.sizeBytes);
    this.options.progress(this.arrived);
  }
}

type RunState = 'cancelled' | (CommandState & { text: string });

/** How much the temporary file has: the program writes to it as its file 3. */
async function written(guest: GuestSession, id: string): Promise<number> {
  const pid = (await guest.readFile(controlFile(id, 'command'), 0, 100))?.data.toString().trim() ?? '';
  if (!/^\d{1,10}$/.test(pid)) return 0;
  const facts = await guest.readFile(`/proc/${pid}/fdinfo/3`, 0, 1_000);
  return Number(/^pos:\s*(\d{1,15})$/m.exec(facts?.data.toString() ?? '')?.[1] ?? 0);
}

/** Sends one piece, or none; answers from where on to go on, a whole number of blocks unless all of it is there. */
async function pushed(guest: GuestSession, part: string, offset?: number, piece?: Buffer): Promise<number> {
  const seek = offset === undefined ? '' : String(offset / PUSH_BLOCK);
  const program = { path: 'sh', args: ['-c', PUSH, 'longhaul', part, seek], stdin: piece };
  const { exitCode, stdout } = await guest.run(program, 12_000);
  if (exitCode !== 0) throw said(exitCode, printable(stdout));
  return Math.floor(Number(printable(stdout) || 0) / PUSH_BLOCK) * PUSH_BLOCK;
}

function said(exitCode: number, what: string): AppError {
  const [code, message] = SAID[exitCode] ?? ['guest_unreachable', () => failed(exitCode, what)];
  return new AppError(code, message(what));
}

const failed = (exitCode: number, what: string) =>
  `The installation ended with exit code ${exitCode} in the VM: ${what} Repeating it is harmless.`;

const unreachable = (why: string) =>
  new AppError('guest_unreachable', `${why} The old file or the new one is there; repeating is harmless.`);

const printable = (text: Buffer) =>
  text
    .toString('utf8')
    .slice(0, 300)
    .replace(/[\x00-\x1f\x7f]+/g, ' ')
    .trim();
