import { randomUUID } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { AppError } from '@longhaul/errors';
import { withLock } from '@longhaul/guest';
import { exists, type VmFiles } from './vm-files.js';

const MAX_LINE = 1 << 20;
const ANSWER_MS = 5_000;

type Json = Record<string, unknown>;

/** Nobody listens on the socket: there is no QEMU process. */
export class NoProcess extends Error {
  constructor(path: string) {
    super(`No QEMU process serves ${path} (any more)`);
  }
}
/** Somebody listens but does not answer: another connection is served, or the process is stopped. */
class Silence extends Error {}
/** QEMU understood the command and refused it. */
export class QmpRefusal extends Error {}

/** What it takes to talk to a QEMU process: its uuid (or ANY_VM), its sockets, and the folder of the locks. */
export type QmpFiles = Pick<VmFiles, 'id' | 'locks'> & { qmp: readonly string[] };

export const ANY_VM = '';

export interface QmpSession {
  /** Throws QmpRefusal when QEMU answers with an error. */
  execute<T = unknown>(command: string, args?: Json, timeoutMs?: number): Promise<T>;
  /** The next event of that name that comes after the session began. */
  event(name: string, timeoutMs: number): Promise<void>;
}

/**
 * Talks to the QEMU process of a VM, which it knows by its uuid. QMP serves one connection a socket and lets others hang,
 * so there are two sockets, each under a lock: when one is busy or its user is stuck, the other serves. Sessions are
 * short (`holdMs`, milliseconds); what takes long is started in one and asked about in others.
 * Errors: NoProcess; `unavailable` when neither socket answers within `waitMs`.
 */
export async function withQmp<T>(
  files: QmpFiles,
  use: (qmp: QmpSession) => Promise<T>,
  { waitMs = 10_000, holdMs = 10_000 } = {},
): Promise<T> {
  // A VM that is gone must not get a folder for locks again.
  if (!(await Promise.all(files.qmp.map(exists))).includes(true)) throw new NoProcess(files.qmp[0]!);
  const giveUpAt = performance.now() + waitMs;
  let turn = 0;
  do {
    const index = turn++ % files.qmp.length;
    let entered = false;
    try {
      const lock = { directory: files.locks, name: `qmp-${index}`, waitMs: 100, holdMs };
      return await withLock(lock, async (signal) => {
        const qmp = await QmpConnection.open(files.qmp[index]!, signal);
        try {
          const { UUID } = await qmp.execute<{ UUID: string }>('query-uuid');
          if (files.id !== ANY_VM && UUID !== files.id)
            throw new Error(`The process on ${files.qmp[index]} is VM ${UUID}`);
          entered = true;
          return await use(qmp);
        } finally {
          qmp.close();
        }
      });
    } catch (error) {
      const busy = error instanceof Silence || (error instanceof AppError && error.code === 'unavailable');
      if (entered || !busy) throw error;
    }
  } while (performance.now() < giveUpAt);
  throw new AppError('unavailable', `The hypervisor process of VM ${files.id} does not answer.`);
}

class QmpConnection implements QmpSession {
  private buffered = '';
  private readonly messages: Json[] = [];
  private failure?: Error;
  private wake = () => {};

  private constructor(private readonly socket: Socket) {}

  static async open(path: string, signal: AbortSignal): Promise<QmpConnection> {
    const socket = connect(path);
    const qmp = new QmpConnection(socket);
    const fail = (error: Error) => {
      qmp.failure ??= error;
      socket.destroy();
      qmp.wake();
    };
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => qmp.receive(text, fail));
    socket.on('error', (error: NodeJS.ErrnoException) => {
      const nobody = ['ENOENT', 'ECONNREFUSED', 'ECONNRESET', 'EPIPE'].includes(error.code ?? '');
      fail(nobody ? new NoProcess(path) : error.code === 'EAGAIN' ? new Silence(path) : error);
    });
    socket.on('close', () => fail(new NoProcess(path)));
    signal.addEventListener('abort', () => fail(new Silence(`${path}: out of time`)), { once: true });
    try {
      await qmp.take((message) => 'QMP' in message, 1_000);
      await qmp.execute('qmp_capabilities');
      return qmp;
    } catch (error) {
      qmp.close();
      throw error;
    }
  }

  async execute<T>(command: string, args: Json = {}, timeoutMs = ANSWER_MS): Promise<T> {
    // Without an id, the answer to a worker that was killed could be taken for ours: it goes to who connects next.
    const id = randomUUID();
    this.socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    const answer = await this.take((message) => message.id === id, timeoutMs);
    if (answer.error) throw new QmpRefusal(`${command}: ${(answer.error as { desc?: string }).desc}`);
    return answer.return as T;
  }

  async event(name: string, timeoutMs: number): Promise<void> {
    await this.take((message) => message.event === name, timeoutMs);
  }

  close(): void {
    this.socket.destroy();
  }

  /** Removes and returns the first message that fits, waiting for it. Other messages (events) stay for later. */
  private async take(fits: (message: Json) => boolean, timeoutMs: number): Promise<Json> {
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      this.wake();
    }, timeoutMs);
    try {
      for (;;) {
        const index = this.messages.findIndex(fits);
        if (index >= 0) return this.messages.splice(index, 1)[0]!;
        if (this.failure) throw this.failure;
        if (late) throw new Silence(`No answer within ${timeoutMs} ms`);
        await new Promise<void>((resolve) => (this.wake = resolve));
      }
    } finally {
      clearTimeout(timer);
    }
  }

  private receive(text: string, fail: (error: Error) => void): void {
    const lines = (this.buffered + text).split('\n');
    this.buffered = lines.pop() ?? '';
    if (this.buffered.length > MAX_LINE || this.messages.length > 1_000)
      return fail(new Error('QMP: too much output'));
    try {
      this.messages.push(...lines.filter((line) => line.trim()).map((line) => JSON.parse(line) as Json));
    } catch (error) {
      return fail(error as Error);
    }
    this.wake();
  }
}
