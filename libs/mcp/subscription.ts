import type { Access, Caller } from '@longhaul/access';
import { AppError } from '@longhaul/errors';
import type { StateChanges } from '@longhaul/persistence';
import { createLogger } from '@longhaul/telemetry';
import { SERVER_INFO_META_KEY, SUBSCRIPTION_ID_META_KEY, type RequestId } from '@modelcontextprotocol/server';
import type { EventStream } from './event-stream.js';
import { SERVER_INFO } from './identity.js';
import type { Filter, Topic } from './topics.js';

/** Between two signs of life. */
const BEAT_MS = 15_000;
/** After so many beats every topic is looked at, as a notification of a change may have been lost. */
const BEATS_PER_LOOK = 2;

/** Who is told. `end` is called when its token holds no more, or there is nothing left to tell. */
export type Peer = Pick<EventStream, 'over' | 'send' | 'keepAlive' | 'end'>;

const log = createLogger('mcp');

/**
 * One open stream of `subscriptions/listen`. A change only marks its topic; what is told is read when the peer takes it. A peer
 * that reads slowly misses states between, never the last one, and costs the same however much happens. Before each message
 * the token is looked at: without one that holds the stream ends.
 */
export class Subscription {
  private readonly watched = new Map<Topic, () => void>();
  private readonly marked = new Set<Topic>();
  private news = false;
  private wake = () => {};
  private beats = 0;

  /** `id` is that of the request; it names the subscription in every message. */
  constructor(
    private readonly id: RequestId,
    private readonly stream: Peer,
    private readonly access: Access,
    private readonly changes: StateChanges,
    private readonly beatMs = BEAT_MS,
  ) {}

  /** Acknowledges, then tells about `topics`. Resolves when the stream is over, and nothing is left of it then. */
  async run(caller: Caller, honoured: Filter, topics: Topic[]): Promise<void> {
    const look = () => this.look();
    const beat = setInterval(() => this.beat(), this.beatMs);
    const unwatchToken = this.changes.on(caller.tokenId, look);
    this.stream.over.addEventListener('abort', look);
    topics.forEach((topic) => this.watch(topic));
    try {
      await this.notify('notifications/subscriptions/acknowledged', { notifications: honoured });
      if (topics.length === 0) this.finish();
      await this.serve(caller);
    } finally {
      clearInterval(beat);
      unwatchToken();
      this.watched.forEach((unwatch) => unwatch());
    }
  }

  /** Ends it in order: the request gets its result. */
  finish(): void {
    const _meta = { [SUBSCRIPTION_ID_META_KEY]: this.id, [SERVER_INFO_META_KEY]: SERVER_INFO };
    this.stream.end({ jsonrpc: '2.0', id: this.id, result: { resultType: 'complete', _meta } });
  }

  private async serve(caller: Caller): Promise<void> {
    while (!this.stream.over.aborted) {
      this.news = false;
      const [topic] = this.marked;
      // Before the caller is read: a change that this reading misses marks it again.
      if (topic) this.marked.delete(topic);
      try {
        const now = await this.access.renew(caller);
        if (!now) return this.stream.end();
        if (topic) {
          await this.tell(topic, now);
          continue;
        }
      } catch (error) {
        log.debug({ err: error }, 'a subscription waits for the database');
        if (topic) this.marked.add(topic);
      }
      if (!this.news) await new Promise<void>((resolve) => (this.wake = resolve));
    }
  }

  private async tell(topic: Topic, caller: Caller): Promise<void> {
    // Unsubscribed from meanwhile.
    if (!this.watched.has(topic)) return;
    try {
      const told = await topic.tell(caller);
      if (told?.last) this.drop(topic);
      if (told) await this.notify(told.method, told.params);
    } catch (error) {
      // It is gone, or not the caller's any more.
      if (!(error instanceof AppError)) throw error;
      this.drop(topic);
    }
  }

  private notify(method: string, params?: object): Promise<void> {
    const _meta = { [SUBSCRIPTION_ID_META_KEY]: this.id };
    return this.stream.send({ jsonrpc: '2.0', method, params: { ...params, _meta } });
  }

  /** Tells about a topic from now on. It is marked at once: it may have changed since it was found. */
  watch(topic: Topic) {
    const changed = () => {
      this.marked.add(topic);
      this.look();
    };
    this.watched.set(topic, topic.watch(changed));
    this.marked.add(topic);
  }

  drop(topic: Topic) {
    this.watched.get(topic)?.();
    this.watched.delete(topic);
    this.marked.delete(topic);
  }

  private beat() {
    this.stream.keepAlive();
    if (++this.beats % BEATS_PER_LOOK === 0)
      [...this.watched.keys()].forEach((topic) => this.marked.add(topic));
    this.look();
  }

  private look() {
    this.news = true;
    this.wake();
  }
}
