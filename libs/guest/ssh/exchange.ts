import { randomUUID } from 'node:crypto';
import { constants } from 'node:os';
import { AppError } from '@longhaul/errors';
import type { ClientChannel } from 'ssh2';
import { printable } from '../agent/answers.js';
import type { GuestProgramResult } from '../channel.js';
import type { SshConnection } from './connection.js';
import { announce, bootstrap } from './scripts.js';

/** What a user's shell may print before our script begins. */
const MAX_GREETING = 64 * 1024;
const MAX_PID = 2 ** 22;

/** One script on the machine, from its start to its end. */
export class Exchange {
  private readonly mark = `longhaul-${randomUUID()}`;
  private readonly input: Buffer;
  private readonly command: string;

  constructor(
    private readonly connection: SshConnection,
    private readonly isRoot: boolean,
    private readonly answerMs: number,
    script: string,
    stdin: Buffer = Buffer.alloc(0),
  ) {
    const text = Buffer.from(announce(this.mark) + script);
    this.input = Buffer.concat([text, stdin]);
    this.command = bootstrap(isRoot, text.length);
  }

  /**
   * How it ended, what it printed, and the id of the process that said that it began. When it lasts longer than `timeoutMs`, or
   * prints more than `maxBytes` to one of its outputs, it is killed: `guest_unreachable`.
   */
  end(timeoutMs: number, maxBytes: number): Promise<GuestProgramResult & { pid: number }> {
    return this.connection.channel(this.command, this.answerMs, async (channel) => {
      const output = new Output(channel, this.mark, maxBytes);
      channel.end(this.input);
      const pid = await this.connection.within(output.begun, this.answerMs, 'run a script');
      try {
        const tooLate = () =>
          unreachable(`A program in the VM did not end within ${timeoutMs} ms. Try again.`);
        return { pid, ...(await this.connection.orLate(output.ended, timeoutMs, tooLate)) };
      } catch (error) {
        if (!output.isOver) await this.kill(pid).catch(() => {});
        throw error;
      }
    });
  }

  private async kill(pid: number): Promise<void> {
    const input = Buffer.from(`kill -9 ${pid}`);
    await this.connection.channel(
      bootstrap(this.isRoot, input.length),
      this.answerMs,
      async (channel) => {
        const closed = new Promise<void>((resolve) => channel.once('close', resolve));
        channel.resume().stderr.resume();
        channel.end(input);
        await this.connection.within(closed, this.answerMs, 'kill a program');
      },
      { urgent: true },
    );
  }
}

/** Takes in what comes on a channel, within bounds, and finds the mark in it. */
class Output {
  readonly begun: Promise<number>;
  readonly ended: Promise<GuestProgramResult>;
  isOver = false;
  private hasBegun = false;
  private greeting = Buffer.alloc(0);
  private readonly stdout: Buffer[] = [];
  private readonly stderr: Buffer[] = [];
  private begin!: (pid: number) => void;
  private failBegin!: (error: AppError) => void;
  private failEnd!: (error: AppError) => void;

  constructor(
    private readonly channel: ClientChannel,
    private readonly mark: string,
    private readonly maxBytes: number,
  ) {
    this.begun = new Promise((resolve, reject) => ([this.begin, this.failBegin] = [resolve, reject]));
    this.ended = new Promise((resolve, reject) => {
      this.failEnd = reject;
      let exitCode: number | undefined;
      channel.on('exit', (code: number | null, signal?: string) => (exitCode = code ?? codeOf(signal)));
      channel.on('close', () => {
        this.isOver = true;
        this.failBegin(unreachable(`The VM, by SSH, runs no script: ${this.said()}`));
        if (exitCode === undefined) return reject(unreachable('The VM, by SSH, broke off. Try again.'));
        resolve({ exitCode, stdout: Buffer.concat(this.stdout), stderr: Buffer.concat(this.stderr) });
      });
    });
    this.ended.catch(() => {});
    this.begun.catch(() => {});
    channel.on('data', (chunk: Buffer) => (this.hasBegun ? this.keep(this.stdout, chunk) : this.seek(chunk)));
    channel.stderr.on('data', (chunk: Buffer) => this.keep(this.stderr, chunk));
  }

  private seek(chunk: Buffer): void {
    this.greeting = Buffer.concat([this.greeting, chunk]);
    const start = this.greeting.indexOf(this.mark);
    const end = start < 0 ? -1 : this.greeting.indexOf('\n', start);
    if (end < 0) {
      if (this.greeting.length > MAX_GREETING) this.failBegin(unreachable('The VM, by SSH, talks nonsense.'));
      return;
    }
    const word = this.greeting.toString('latin1', start + this.mark.length + 1, Math.min(end, start + 200));
    const pid = Number(word);
    if (word === 'missing')
      this.failBegin(
        new AppError('guest_missing_dependency', 'The VM lacks the program that was to be run.'),
      );
    else if (!(Number.isInteger(pid) && pid > 1 && pid <= MAX_PID))
      this.failBegin(unreachable('The VM, by SSH, talks nonsense.'));
    else {
      this.hasBegun = true;
      this.begin(pid);
      this.keep(this.stdout, this.greeting.subarray(end + 1));
    }
  }

  private keep(parts: Buffer[], chunk: Buffer): void {
    const kept = parts.reduce((sum, part) => sum + part.length, 0);
    const limit = parts === this.stderr ? Math.max(this.maxBytes, MAX_GREETING) : this.maxBytes;
    if (kept + chunk.length <= limit) return void parts.push(chunk);
    // SSH's window fills up, and the other side has to wait.
    this.channel.pause().stderr.pause();
    this.failEnd(unreachable(`A program in the VM printed more than ${limit} bytes.`));
  }

  private said(): string {
    return printable(
      Buffer.concat([...this.stderr, this.greeting])
        .toString('utf8')
        .trim(),
    );
  }
}

/** As a shell reports it; SSH names signals without the SIG. */
function codeOf(signal = ''): number {
  const number = (constants.signals as Record<string, number>)[
    `SIG${signal.split('@')[0]!.replace(/^SIG/, '')}`
  ];
  return 128 + (number ?? 0);
}

const unreachable = (message: string) => new AppError('guest_unreachable', message);
