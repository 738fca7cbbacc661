import { Inject, Injectable } from '@nestjs/common';
import { CONFIG } from '@longhaul/config';
import { createLogger } from '@longhaul/telemetry';
import { isInitializeRequest } from '@modelcontextprotocol/server';
import type { z } from 'zod';
import type { CallRequest } from './call.js';
import type { mcpConfig } from './config.js';
import { McpServers } from './server.js';
import { SessionNews } from './session-news.js';
import { Session, refuse, type HttpOptions } from './session.js';

const PER_TOKEN = 16;
const PER_PROCESS = 1_000;
const IDLE_MS = 30 * 60_000;
const SWEEP_MS = 60_000;

/**
 * Sessions of clients of the 2025-11-25 line, by setting: only through one can the server ask its client or tell it something
 * unasked. They live in this process and end with it.
 */
@Injectable()
export class Sessions {
  /** Whether there are any; else that line is served without. */
  readonly enabled: boolean;
  private readonly log = createLogger('mcp');
  private readonly sessions = new Map<string, Session>();
  private readonly sweeper = setInterval(() => this.sweep(), SWEEP_MS).unref();
  private stopping = false;

  constructor(
    @Inject(CONFIG) config: z.output<typeof mcpConfig>,
    private readonly servers: McpServers,
    private readonly news: SessionNews,
  ) {
    this.enabled = config.MCP_SESSIONS;
  }

  /** Answers an HTTP request of that line. A session of another token is answered like one that does not exist. */
  async fetch(request: Request, options: HttpOptions): Promise<Response> {
    const asked = options.authInfo!.extra!.request as CallRequest;
    const { caller } = asked;
    const id = request.headers.get('mcp-session-id');
    if (id === null) {
      if (isInitializeRequest(options.parsedBody)) return this.open(asked, request, options);
      return refuse(400, 'Bad Request: the Mcp-Session-Id header is required; initialize gives it');
    }
    const session = this.sessions.get(id);
    if (session?.tokenId === caller.tokenId) return session.fetch(request, options);
    return refuse(404, 'Session not found', -32_001);
  }

  /** From now on no session begins, and streams end on which nothing is answered. */
  stop(): void {
    this.stopping = true;
    clearInterval(this.sweeper);
    this.sessions.forEach((session) => session.endListening());
  }

  async close(): Promise<void> {
    await Promise.allSettled([...this.sessions.values()].map((session) => session.close()));
  }

  private async open(asked: CallRequest, request: Request, options: HttpOptions): Promise<Response> {
    const { tokenId } = asked.caller;
    if (this.stopping) return refuse(503, 'The server is stopping.');
    const all = [...this.sessions.values()];
    const own = all.filter((session) => session.tokenId === tokenId);
    if (own.length >= PER_TOKEN && !this.endIdlest(own))
      return refuse(429, `A token has at most ${PER_TOKEN} sessions in use. End one with DELETE.`);
    if (this.sessions.size >= PER_PROCESS && !this.endIdlest(all))
      return refuse(503, 'Too many sessions are in use. Try again later.');
    const server = this.servers.serve('session');
    server.onerror = (error) => this.log.debug({ err: error }, 'session');
    let endNews = () => {};
    const session = new Session(tokenId, server, () => {
      this.sessions.delete(session.id);
      endNews();
    });
    // Before anything is waited for, as others may be about to begin one.
    this.sessions.set(session.id, session);
    try {
      endNews = await this.news.tell(server, asked);
      // It may have had to make room meanwhile.
      if (!this.sessions.has(session.id)) endNews();
      await session.connect();
      const response = await session.fetch(request, options);
      if (response.ok) return response;
      await session.close();
      return response;
    } catch (error) {
      await session.close();
      throw error;
    }
  }

  /** Makes room at the expense of whom nobody has used for longest. */
  private endIdlest(sessions: Session[]): boolean {
    const idlest = sessions.reduce((one, other) => (other.idleMs > one.idleMs ? other : one));
    if (idlest.idleMs === 0) return false;
    this.end(idlest);
    return true;
  }

  private sweep(): void {
    for (const session of this.sessions.values()) if (session.idleMs > IDLE_MS) this.end(session);
  }

  private end(session: Session): void {
    this.sessions.delete(session.id);
    void session.close().catch(() => undefined);
  }
}
