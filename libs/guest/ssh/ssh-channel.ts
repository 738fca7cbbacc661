import { GuestChannel, type GuestSession, type SessionOptions } from '../channel.js';
import { withLock } from '../lock.js';
import { metered } from '../metered.js';
import { SshConnection } from './connection.js';
import { SshSession } from './session.js';
import type { SshTarget } from './target.js';

export interface SshChannelOptions extends SshTarget {
  /** Folder of this machine on this host, for the lock. */
  lockDirectory: string;
  /** To accept the connection, and three times that for the login, milliseconds. Default 10 s. */
  connectMs?: number;
  /** How long to wait for each answer, milliseconds. Default 10 s. */
  answerMs?: number;
  /** How long a login is kept for the next session, milliseconds. Default 60 s. */
  idleMs?: number;
}

/** A kept login that does not answer in this time is left for a new one. */
const STILL_THERE_MS = 3_000;

/** GuestChannel by SSH, to any Linux with a POSIX shell, coreutils (or busybox) and setsid. */
export class SshChannel extends GuestChannel {
  /** The machine's whole key, once a session has been open. */
  hostKey: string | undefined;
  private kept: { connection: SshConnection; timer: NodeJS.Timeout } | undefined;

  constructor(private readonly options: SshChannelOptions) {
    super();
  }

  session<T>(use: (guest: GuestSession) => Promise<T>, options: SessionOptions = {}): Promise<T> {
    const { lockDirectory: directory, user, answerMs = 10_000 } = this.options;
    return withLock({ ...options, directory, name: 'ssh' }, async (over) => {
      const connection = (await this.keptConnection(over)) ?? (await this.connect(over));
      const close = () => connection.close();
      over.addEventListener('abort', close);
      if (over.aborted) close();
      const session = new SshSession(connection, user === 'root', answerMs);
      try {
        return await use(metered(session));
      } finally {
        session.end();
        over.removeEventListener('abort', close);
        this.keep(connection);
      }
    });
  }

  /** Ends the login that is kept. */
  close(): void {
    if (!this.kept) return;
    clearTimeout(this.kept.timer);
    this.kept.connection.close();
    this.kept = undefined;
  }

  private async connect(over: AbortSignal): Promise<SshConnection> {
    const connection = await SshConnection.open(this.options, this.options.connectMs ?? 10_000, over);
    this.hostKey = connection.hostKey;
    return connection;
  }

  /** Many sessions are a second apart: a login for each would cost both sides much, and fill the machine's log. */
  private keep(connection: SshConnection): void {
    this.close();
    if (!connection.isUsable) return connection.close();
    connection.keepsProcess(false);
    const timer = setTimeout(() => this.close(), this.options.idleMs ?? 60_000).unref();
    this.kept = { connection, timer };
  }

  private async keptConnection(over: AbortSignal): Promise<SshConnection | undefined> {
    if (!this.kept) return undefined;
    const { connection, timer } = this.kept;
    clearTimeout(timer);
    this.kept = undefined;
    connection.keepsProcess(true);
    const close = () => connection.close();
    over.addEventListener('abort', close);
    try {
      await new SshSession(connection, this.options.user === 'root', STILL_THERE_MS).ping();
      return connection;
    } catch {
      connection.close();
      return undefined;
    } finally {
      over.removeEventListener('abort', close);
    }
  }
}
