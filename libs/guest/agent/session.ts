import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { AppError } from '@longhaul/errors';
import type { GuestProgram, GuestProgramResult, GuestSession, Spawned } from '../channel.js';
import { AgentRefusal, base64Field, countField, isRecord, ProtocolViolation } from './answers.js';
import type { AgentCalls } from './calls.js';

const MIB = 1024 * 1024;
/** The agent is fastest with reads of this size. */
const READ_CHUNK = MIB;
const MAX_READ = 16 * MIB;
const WRITE_CHUNK = 256 * 1024;
/**
 * So many of the newest handles are closed after a session that was cut off: the two files that a session reads at once, one
 * more for each time that this, too, was cut off, and some to spare. A handle that somebody else holds meanwhile is lost.
 */
const LOST_HANDLES = 16;

/** GuestSession over an open connection to the QEMU guest agent. */
export class AgentSession implements GuestSession {
  private openFiles = 0;

  constructor(
    private readonly connection: AgentCalls,
    /** Whether sessions before may have left files open in the agent, which tells nobody of which ones it has. */
    private hasLostFiles = false,
  ) {}

  /** As far as its answers tell: what was asked for without an answer may be done. */
  get mayHaveOpenFiles(): boolean {
    return this.hasLostFiles || this.openFiles > 0;
  }

  /**
   * Closes what sessions before may have left open. The agent numbers its handles in turn, so that theirs come right before
   * the next one; an agent that has started anew since has none of them. One that opens no files is left as it is.
   */
  async closeLostFiles(): Promise<void> {
    if (!this.hasLostFiles) return;
    let newest: number;
    try {
      newest = await this.open('/proc/self/stat', 'r');
    } catch (error) {
      if (isRefusal(error)) return;
      throw error;
    }
    const closed = await Promise.allSettled(
      Array.from({ length: LOST_HANDLES }, (_, age) => this.close(newest - age)),
    );
    const failed = closed.find((one) => one.status === 'rejected' && !isRefusal(one.reason));
    if (failed) throw (failed as PromiseRejectedResult).reason;
    this.hasLostFiles = false;
    this.openFiles = 0;
  }

  async ping(): Promise<void> {
    await this.call('guest-ping');
  }

  async spawn(program: GuestProgram): Promise<Spawned> {
    const pid = await this.exec(program);
    return { pid, result: () => this.result(pid) };
  }

  async run(program: GuestProgram, timeoutMs: number): Promise<GuestProgramResult> {
    const deadline = performance.now() + timeoutMs;
    const pid = await this.exec(program);
    for (let waitMs = 2; ; waitMs = Math.min(waitMs * 1.5, 50)) {
      const result = await this.result(pid);
      if (result) return result;
      if (performance.now() > deadline) {
        await this.spawn({ path: 'sh', args: ['-c', `kill -9 ${pid}`] });
        throw new AppError(
          'guest_unreachable',
          `A program in the VM did not end within ${timeoutMs} ms. Try again.`,
        );
      }
      await pause(waitMs);
    }
  }

  async readFile(
    path: string,
    offset: number,
    maxBytes: number,
  ): Promise<{ data: Buffer; eof: boolean } | undefined> {
    if (!(maxBytes >= 1 && maxBytes <= MAX_READ)) throw new Error(`Cannot read ${maxBytes} bytes at once`);
    const handle = await this.openExisting(path);
    if (handle === undefined) return undefined;
    const chunks = Array.from({ length: Math.ceil(maxBytes / READ_CHUNK) }, (_, index) =>
      Math.min(READ_CHUNK, maxBytes - index * READ_CHUNK),
    );
    // All at once: a round trip costs more than what the agent does. In order, as the agent has no read at an offset.
    const [seek, reads, close] = await Promise.allSettled([
      offset > 0 ? this.call('guest-file-seek', { handle, offset, whence: 'set' }) : undefined,
      Promise.all(chunks.map((count) => this.read(handle, count))),
      this.close(handle),
    ]);
    if (seek.status === 'rejected') throw seek.reason;
    if (reads.status === 'rejected') {
      // The process ended after its file was opened.
      const isGone = path.startsWith('/proc/') && reads.reason?.cause instanceof AgentRefusal;
      if (isGone) return undefined;
      throw reads.reason;
    }
    if (close.status === 'rejected') throw close.reason;
    return {
      data:
        reads.value.length === 1 ? reads.value[0]!.data : Buffer.concat(reads.value.map(({ data }) => data)),
      eof: reads.value.some(({ eof }) => eof),
    };
  }

  async writeFile(path: string, data: Buffer): Promise<void> {
    const handle = await this.open(path, 'w');
    const size = Math.min(WRITE_CHUNK, this.connection.maxDataBytes);
    try {
      for (let start = 0; start < data.length;) {
        const chunk = data.subarray(start, start + size);
        const answer = await this.call('guest-file-write', { handle, 'buf-b64': chunk.toString('base64') });
        const written = this.checked(() => countField(answer, 'count'));
        if (written < 1 || written > chunk.length)
          throw this.connection.violated(new ProtocolViolation('a wrong count'));
        start += written;
      }
    } finally {
      await this.close(handle);
    }
  }

  async setTime(now: Date): Promise<void> {
    try {
      await this.call('guest-set-time', { time: now.getTime() * 1_000_000 });
    } catch (error) {
      // The system's time is set by then; small images have no tool for the clock chip that they do not have either.
      if (!(error instanceof AppError && /hwclock|hardware clock/.test(error.message))) throw error;
    }
  }

  private async result(pid: number): Promise<GuestProgramResult | undefined> {
    const status = await this.call('guest-exec-status', { pid });
    return isRecord(status) && status['exited'] === true
      ? this.checked(() => programResult(status))
      : undefined;
  }

  private async exec(program: GuestProgram): Promise<number> {
    if (program.stdin && program.stdin.length > this.connection.maxDataBytes)
      return this.exec(await this.withInputFile(program, program.stdin));
    const answer = await this.call('guest-exec', {
      path: program.path,
      arg: program.args,
      env: program.env && Object.entries(program.env).map(([name, value]) => `${name}=${value}`),
      'input-data': program.stdin?.toString('base64'),
      'capture-output': true,
    });
    return this.checked(() => countField(answer, 'pid'));
  }

  /** The same program, its input in a file that is gone once it has been opened. */
  private async withInputFile({ path, args = [], env }: GuestProgram, stdin: Buffer): Promise<GuestProgram> {
    const file = `/tmp/longhaul-input-${randomUUID()}`;
    await this.writeFile(file, stdin);
    const script = 'exec <"$1" && rm -f "$1" && shift && exec "$@"';
    return { path: '/bin/sh', args: ['-c', script, 'sh', file, path, ...args], env };
  }

  private async read(handle: number, count: number): Promise<{ data: Buffer; eof: boolean }> {
    const answer = await this.call('guest-file-read', { handle, count });
    const data = this.checked(() => base64Field(answer, 'buf-b64', count));
    return { data, eof: isRecord(answer) && answer['eof'] === true };
  }

  private async open(path: string, mode: 'r' | 'w'): Promise<number> {
    this.openFiles++;
    const answer = await this.call('guest-file-open', { path, mode }).catch((error: unknown) => {
      if (isRefusal(error)) this.openFiles--;
      throw error;
    });
    return this.checked(() => {
      if (!Number.isSafeInteger(answer)) throw new ProtocolViolation('no file handle');
      return answer as number;
    });
  }

  private async close(handle: number): Promise<void> {
    try {
      await this.call('guest-file-close', { handle });
      this.openFiles--;
    } catch (error) {
      if (isRefusal(error)) this.openFiles--;
      throw error;
    }
  }

  private async openExisting(path: string): Promise<number | undefined> {
    try {
      return await this.open(path, 'r');
    } catch (error) {
      if (!isRefusal(error)) throw error;
      if (/No such file or directory/.test(error.message)) return undefined;
      // The agent may speak the guest's language.
      const found = await this.run({ path: 'sh', args: ['-c', '[ -e "$1" ]', 'sh', path] }, 5_000);
      if (found.exitCode === 1) return undefined;
      throw error;
    }
  }

  private async call(command: string, args?: Record<string, unknown>): Promise<unknown> {
    try {
      return await this.connection.call(command, args);
    } catch (error) {
      if (!(error instanceof AgentRefusal)) throw error;
      if (/disabled|not allowed|frozen/.test(error.message) && (await this.thawed())) {
        return await this.connection
          .call(command, args)
          .catch((again) => Promise.reject(toAppError(command, again)));
      }
      throw toAppError(command, error);
    }
  }

  /** Whether the file systems were frozen, in which state the agent does next to nothing: whoever froze them is gone, as we have the VM to ourselves. */
  private async thawed(): Promise<boolean> {
    const status = await this.connection.call('guest-fsfreeze-status').catch(() => 'unknown');
    if (status !== 'frozen') return false;
    const command = 'guest-fsfreeze-thaw';
    await this.connection.call(command).catch((error) => Promise.reject(toAppError(command, error)));
    return true;
  }

  private checked<T>(parse: () => T): T {
    try {
      return parse();
    } catch (error) {
      throw error instanceof ProtocolViolation ? this.connection.violated(error) : error;
    }
  }
}

const isRefusal = (error: unknown): error is AppError =>
  error instanceof AppError && error.cause instanceof AgentRefusal;

function programResult(status: Record<string, unknown>): GuestProgramResult {
  const exitCode = 'signal' in status ? 128 + countField(status, 'signal') : countField(status, 'exitcode');
  return {
    exitCode,
    stdout: base64Field(status, 'out-data', MIB),
    stderr: base64Field(status, 'err-data', MIB),
  };
}

function toAppError(command: string, error: unknown): unknown {
  if (!(error instanceof AgentRefusal)) return error;
  const said = error.message;
  if (/No space left/.test(said)) {
    return new AppError('guest_out_of_space', 'The disk of the VM is full. Free some space.', undefined, {
      cause: error,
    });
  }
  if (command === 'guest-exec' && /No such file/.test(said)) {
    return new AppError('guest_missing_dependency', `The VM lacks a program: ${said}`, undefined, {
      cause: error,
    });
  }
  return new AppError('guest_unreachable', `The VM's guest agent refused ${command}: ${said}`, undefined, {
    cause: error,
  });
}
