import { once } from 'node:events';
import type { ServerResponse } from 'node:http';

/** A peer that has taken nothing for so long is gone, or will never read. */
const STALLED_MS = 60_000;

const HEADERS = {
  'content-type': 'text/event-stream',
  'cache-control': 'no-cache, no-transform',
  connection: 'keep-alive',
  'x-accel-buffering': 'no',
};

/**
 * Server-sent events as the answer to a request. What is not sent yet waits with who sends it: `send` resolves when the socket
 * takes more, so one sender at a time never buffers more than one message. A stalled peer is cut off.
 */
export class EventStream {
  private readonly ending = new AbortController();
  private stalled: NodeJS.Timeout | undefined;

  constructor(
    private readonly res: ServerResponse,
    private readonly stalledMs = STALLED_MS,
  ) {
    res.on('drain', () => this.resume());
    res.on('close', () => {
      this.resume();
      this.ending.abort();
    });
    // Its peer may have gone before anyone listened.
    if (res.destroyed) this.ending.abort();
    else res.writeHead(200, HEADERS);
  }

  /** Aborts when the stream has ended, whoever ended it. */
  get over(): AbortSignal {
    return this.ending.signal;
  }

  /** Resolves as soon as the next message may be sent. Has no effect once the stream is over. */
  async send(message: object): Promise<void> {
    if (this.over.aborted) return;
    this.watch(this.res.write(eventOf(message)));
    if (this.res.writableNeedDrain)
      await once(this.res, 'drain', { signal: this.over }).catch(() => undefined);
  }

  /** Keeps what stands between from taking the stream for dead; left out where bytes wait for the peer anyway. */
  keepAlive(): void {
    if (this.over.aborted || this.res.writableNeedDrain) return;
    this.watch(this.res.write(': keep-alive\n\n'));
  }

  /** Ends the stream, with a last message or without. */
  end(message?: object): void {
    if (this.over.aborted) return;
    this.res.end(message && eventOf(message));
    this.watch(this.res.writableLength === 0);
    this.ending.abort();
  }

  private watch(taken: boolean) {
    if (!taken) this.stalled ??= setTimeout(() => this.res.destroy(), this.stalledMs);
  }

  private resume() {
    clearTimeout(this.stalled);
    this.stalled = undefined;
  }
}

const eventOf = (message: object) => `event: message\ndata: ${JSON.stringify(message)}\n\n`;
