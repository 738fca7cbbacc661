import { randomInt } from 'node:crypto';
import type { Duplex } from 'node:stream';
import { AppError } from '@longhaul/errors';
import { AgentRefusal, LineReader, parseAnswer, ProtocolViolation, SENTINEL } from './answers.js';
import type { AgentCalls } from './calls.js';

/** Holds 2 × 1 MiB of a program's output as base64. */
const MAX_LINE_BYTES = 4 * 1024 * 1024;

interface Pending {
  timer: NodeJS.Timeout;
  resolve(answer: unknown): void;
  reject(error: unknown): void;
}

/**
 * One connection to a QEMU guest agent. The agent answers in order and knows no requests by number, so after any
 * time-out or nonsense the connection is closed for good; the next one starts with a clean slate by its sync.
 */
export class AgentConnection implements AgentCalls {
  readonly maxDataBytes = Infinity;
  private readonly lines = new LineReader(MAX_LINE_BYTES);
  private readonly pending: Pending[] = [];
  private failure: AppError | undefined;
  /** While set, every line but the answer with this number is left over from a session before. */
  private syncId: number | undefined;

  private constructor(
    private readonly socket: Duplex,
    private readonly answerMs: number,
  ) {
    socket.on('data', (chunk: Buffer) => this.receive(chunk));
    socket.on('error', (error) => this.fail('cannot be reached', error));
    socket.on('close', () => this.fail('closed the connection'));
  }

  /** Waits until the agent has answered, so that no request is left behind for one that is not up yet. */
  static async open(socket: Duplex, answerMs: number, signal: AbortSignal): Promise<AgentConnection> {
    const connection = new AgentConnection(socket, answerMs);
    const close = () => connection.close();
    signal.addEventListener('abort', close);
    if (signal.aborted) close();
    try {
      await connection.sync();
      return connection;
    } catch (error) {
      // Another connection may follow under the same signal.
      signal.removeEventListener('abort', close);
      close();
      throw error;
    }
  }

  call(command: string, args?: Record<string, unknown>): Promise<unknown> {
    return this.request(command, JSON.stringify({ execute: command, arguments: args }));
  }

  violated(violation: ProtocolViolation): AppError {
    return this.fail(`sent ${violation.message}`, violation);
  }

  close(): void {
    this.fail('was left');
  }

  private async sync(): Promise<void> {
    const id = (this.syncId = randomInt(2 ** 47));
    const request = JSON.stringify({ execute: 'guest-sync-delimited', arguments: { id } });
    await this.request('guest-sync-delimited', String.fromCharCode(SENTINEL) + request);
    this.syncId = undefined;
  }

  private request(command: string, text: string): Promise<unknown> {
    if (this.failure) return Promise.reject(this.failure);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.fail(`did not answer ${command} in time`), this.answerMs);
      this.pending.push({ timer, resolve, reject });
      this.socket.write(text + '\n', text.charCodeAt(0) === SENTINEL ? 'latin1' : 'utf8');
    });
  }

  private receive(chunk: Buffer): void {
    try {
      for (const line of this.lines.push(chunk)) this.settle(line);
    } catch (error) {
      if (!(error instanceof ProtocolViolation)) throw error;
      this.violated(error);
    }
  }

  private settle(line: Buffer): void {
    const compact = () => line.toString('latin1').replace(/\s/g, '');
    if (this.syncId !== undefined && compact() !== `{"return":${this.syncId}}`) return;
    const request = this.pending[0];
    if (!request) throw new ProtocolViolation('an answer that nobody asked for');
    const outcome = parseAnswer(line);
    clearTimeout(request.timer);
    this.pending.shift();
    if (outcome instanceof AgentRefusal) request.reject(outcome);
    else request.resolve(outcome);
  }

  private fail(what: string, cause?: unknown): AppError {
    if (this.failure) return this.failure;
    this.failure = new AppError('guest_unreachable', `The VM's guest agent ${what}. Try again.`, undefined, {
      cause,
    });
    this.socket.destroy();
    for (const { timer, reject } of this.pending.splice(0)) {
      clearTimeout(timer);
      reject(this.failure);
    }
    return this.failure;
  }
}
