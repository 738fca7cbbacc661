import { GuestChannel, type GuestSession, type SessionOptions } from '../channel.js';
import { withLock } from '../lock.js';
import { AgentConnection } from './connection.js';
import { AgentSession } from './session.js';

export interface AgentChannelOptions {
  /** Unix socket of the agent's character device; under 107 bytes. */
  socketPath: string;
  /** Folder of this VM on this host, for the lock. */
  lockDirectory: string;
  /** Cuts off a stopped process that still holds the connection: the socket serves one client, others hang. */
  evict?: () => Promise<void>;
  /** How long to wait for each answer, milliseconds. Default 5 s. */
  answerMs?: number;
}

/** GuestChannel through the QEMU guest agent. */
export class AgentChannel extends GuestChannel {
  constructor(private readonly options: AgentChannelOptions) {
    super();
  }

  session<T>(use: (guest: GuestSession) => Promise<T>, options: SessionOptions = {}): Promise<T> {
    const { socketPath, lockDirectory, evict, answerMs = 5_000 } = this.options;
    return withLock({ ...options, directory: lockDirectory, name: 'agent', evict }, async (over) => {
      const connection = await AgentConnection.open(socketPath, answerMs, over);
      try {
        return await use(new AgentSession(connection));
      } finally {
        connection.close();
      }
    });
  }
}
