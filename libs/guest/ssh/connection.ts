import { once, setMaxListeners } from 'node:events';
import { connect, type Socket } from 'node:net';
import { AppError } from '@longhaul/errors';
import { Client, type ClientChannel, type SFTPWrapper } from 'ssh2';
import { printable } from '../agent/answers.js';
import { interruptible } from '../interruptible.js';
import { fingerprintOf, hostKeyText, parseHostKey, type PinnedKey, type SshTarget } from './target.js';

/** sshd allows 10 in a connection by default; some are left for killing programs. */
const MAX_CHANNELS = 4;

/**
 * A login on a machine. Whatever goes wrong with it, it is closed for good, and all that was under way rejects with the
 * same `guest_unreachable`.
 */
export class SshConnection {
  /** The machine's key, which is the pinned one. */
  hostKey = '';
  private readonly client = new Client();
  private readonly over = new AbortController();
  private failure: AppError | undefined;
  private channels = 0;
  private readonly waiting: (() => void)[] = [];
  private sftp: Promise<SFTPWrapper | undefined> | undefined;

  private constructor(private readonly socket: Socket) {
    // One for each thing that is under way.
    setMaxListeners(0, this.over.signal);
    socket.on('error', (error) => this.fail('cannot be reached. Try again.', error));
    socket.on('close', () => this.fail('closed the connection. Try again.'));
    this.client.on('error', (error) => this.fail(describe(error), error));
  }

  /**
   * Resolves when the machine has proved its key and accepted the login. It has `connectMs` to accept the connection and three
   * times that for the login: a busy machine is slow at it, one that is away is not to be waited for.
   */
  static async open(target: SshTarget, connectMs: number, signal: AbortSignal): Promise<SshConnection> {
    const pinned = parseHostKey(target.hostKey);
    const connection = new SshConnection(connect({ host: target.host, port: target.port, noDelay: true }));
    const closeIt = () => connection.close();
    signal.addEventListener('abort', closeIt);
    if (signal.aborted) closeIt();
    try {
      await connection.within(once(connection.socket, 'connect'), connectMs, 'accept the connection');
      const login = connection.login(target, pinned);
      await connection.within(login, 3 * connectMs, 'complete the login');
      return connection;
    } catch (error) {
      connection.close();
      throw error;
    } finally {
      signal.removeEventListener('abort', closeIt);
    }
  }

  get isUsable(): boolean {
    return !this.failure && this.channels === 0;
  }

  /** Runs `use` with a channel on which the user's shell does `command`; waits while too many are open. */
  async channel<T>(
    command: string,
    answerMs: number,
    use: (channel: ClientChannel) => Promise<T>,
    { urgent = false } = {},
  ): Promise<T> {
    while (!urgent && this.channels >= MAX_CHANNELS)
      await new Promise<void>((resolve) => this.waiting.push(resolve));
    this.channels++;
    try {
      const opened = new Promise<ClientChannel>((resolve, reject) => {
        this.client.exec(command, (error, channel) => (error ? reject(error) : resolve(channel)));
      }).catch((error: unknown) => Promise.reject(this.fail('started no shell. Try again.', error)));
      const channel = await this.within(opened, answerMs, 'start a shell');
      try {
        return await use(channel);
      } finally {
        // Without, what is left in it would wait for a reader for ever.
        channel.resume().stderr.resume();
        channel.close();
      }
    } finally {
      this.channels--;
      this.waiting.shift()?.();
    }
  }

  /** Runs `use` with the machine's SFTP server, if it has one. */
  async files<T>(answerMs: number, use: (sftp: SFTPWrapper | undefined) => Promise<T>): Promise<T> {
    this.channels++;
    try {
      this.sftp ??= new Promise((resolve, reject) => {
        this.client.sftp((error, sftp) => (error ? reject(error) : resolve(sftp)));
      });
      const sftp = await this.within(
        this.sftp.catch(() => undefined),
        answerMs,
        'start its SFTP server',
      );
      // One that ends is not started again.
      if (sftp && sftp.listenerCount('error') === 0)
        sftp.on('error', (error: Error) => this.fail(describe(error), error));
      return await use(sftp);
    } finally {
      this.channels--;
    }
  }

  /** What `work` settles to. The connection is given up after `ms`; `work` is when the connection ends. */
  within<T>(work: Promise<T>, ms: number, what: string): Promise<T> {
    return this.orLate(work, ms, () => this.fail(`did not ${what} in time. Try again.`));
  }

  /** As `within`, without harm for the connection: rejects with `late()` after `ms`. */
  orLate<T>(work: Promise<T>, ms: number, late: () => Error): Promise<T> {
    work.catch(() => {});
    return interruptible(work, ms, late, this.over.signal);
  }

  /** Lets the process end although this connection is open, or not. */
  keepsProcess(keeps: boolean): void {
    if (keeps) this.socket.ref();
    else this.socket.unref();
  }

  close(): void {
    this.fail('was left. Try again.');
  }

  private login({ user, privateKey, password }: SshTarget, pinned: PinnedKey): Promise<void> {
    return new Promise<void>((resolve) => {
      this.client.once('ready', resolve).connect({
        sock: this.socket,
        username: user,
        ...(privateKey ? { privateKey } : { password }),
        // The time-out is ours.
        readyTimeout: 0,
        algorithms: {
          serverHostKey: [...pinned.algorithms],
          // A few bytes of compressed data could become any number.
          compress: ['none'],
        },
        hostVerifier: (key: Buffer) => {
          this.hostKey = hostKeyText(key);
          const found = fingerprintOf(key);
          if (found === pinned.fingerprint) return true;
          this.fail(
            `has another host key than the pinned one: ${found} instead of ${pinned.fingerprint}. Either it was set up ` +
              'anew or somebody else answers in its place; nothing was sent to it. An operator has to look.',
          );
          return false;
        },
      });
    }).catch((error: unknown) => Promise.reject(this.fail('cannot be logged in to with this key.', error)));
  }

  private fail(what: string, cause?: unknown): AppError {
    if (this.failure) return this.failure;
    const message = `The VM, by SSH, ${what}`;
    this.failure = new AppError('guest_unreachable', message, undefined, { cause });
    this.over.abort(this.failure);
    this.socket.destroy();
    return this.failure;
  }
}

function describe(error: Error & { level?: string }): string {
  if (error.level === 'client-authentication') return 'refused the login: wrong user, key or password.';
  return `broke off: ${printable(error.message)}. Try again.`;
}
