import { existsSync } from 'node:fs';
import { createConnection } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { AppError } from '@longhaul/errors';
import { GuestChannel, type GuestSession, type SessionOptions } from '../channel.js';
import { withLock } from '../lock.js';
import { metered } from '../metered.js';
import type { AgentCalls } from './calls.js';
import { AgentConnection } from './connection.js';
import { AgentSession } from './session.js';

interface CommonOptions {
  /** Folder of this VM on this host, for the lock. */
  lockDirectory: string;
  /** Cuts off a stopped process that still holds the connection: the socket serves one client, others hang. */
  evict?: () => Promise<void>;
  /** How long to wait for each answer, milliseconds. Default 5 s. */
  answerMs?: number;
}

/** For so long a connection that fails is made again: an agent may just be starting anew. */
const REOPEN_MS = 1_000;

/** By the unix socket of the agent's character device (under 107 bytes), or through a program that holds that socket. */
export type AgentChannelOptions = CommonOptions &
  ({ socketPath: string } | { open: (answerMs: number, over: AbortSignal) => Promise<AgentCalls> });

/** GuestChannel through the QEMU guest agent. */
export class AgentChannel extends GuestChannel {
  constructor(private readonly options: AgentChannelOptions) {
    super();
  }

  async session<T>(use: (guest: GuestSession) => Promise<T>, options: SessionOptions = {}): Promise<T> {
    const { lockDirectory, evict, answerMs = 5_000 } = this.options;
    // A VM that is gone must not get a folder for locks again.
    if ('socketPath' in this.options && !existsSync(this.options.socketPath))
      throw new AppError('guest_unreachable', 'The VM has no guest agent at present. Is it running?');
    const lock = { ...options, directory: lockDirectory, name: 'agent', evict };
    return withLock(lock, async (over, handover) => {
      const connection = await this.open(answerMs, over);
      const session = new AgentSession(connection, handover.mustTidy);
      // Whoever is cut off does not reach the end.
      handover.mustTidy = true;
      try {
        await session.closeLostFiles();
        return await use(metered(session));
      } finally {
        handover.mustTidy = session.mayHaveOpenFiles;
        connection.close();
      }
    });
  }

  private async open(answerMs: number, over: AbortSignal): Promise<AgentCalls> {
    if ('open' in this.options) return this.options.open(answerMs, over);
    const until = performance.now() + REOPEN_MS;
    for (;;) {
      try {
        return await AgentConnection.open(createConnection(this.options.socketPath), answerMs, over);
      } catch (error) {
        if (over.aborted || performance.now() > until) throw error;
        await pause(REOPEN_MS / 10);
      }
    }
  }
}
