import type { EventStore, JSONRPCMessage } from '@modelcontextprotocol/server';

/** What a message takes beside its text. */
const OVERHEAD_BYTES = 128;

/** Before all that is sent outside of requests; the SDK's transport gives that stream its name. */
export const START_OF_LISTENING = '0._GET_stream';

/**
 * The last messages of a session, so that a client that lost a stream gets what it missed. Older ones give way to keep all
 * within `limitBytes`; the newest is kept whatever its size.
 */
export class EventLog implements EventStore {
  private readonly events: { id: string; streamId: string; message: JSONRPCMessage; bytes: number }[] = [];
  private bytes = 0;
  private count = 0;

  constructor(private readonly limitBytes: number) {}

  async storeEvent(streamId: string, message: JSONRPCMessage): Promise<string> {
    const id = `${++this.count}.${streamId}`;
    const bytes = OVERHEAD_BYTES + Buffer.byteLength(JSON.stringify(message));
    this.events.push({ id, streamId, message, bytes });
    this.bytes += bytes;
    while (this.bytes > this.limitBytes && this.events.length > 1) this.bytes -= this.events.shift()!.bytes;
    return id;
  }

  async getStreamIdForEventId(eventId: string): Promise<string | undefined> {
    return placeOf(eventId)?.streamId;
  }

  async replayEventsAfter(
    lastEventId: string,
    { send }: { send: (eventId: string, message: JSONRPCMessage) => Promise<void> },
  ): Promise<string> {
    const { number, streamId } = placeOf(lastEventId)!;
    for (const event of this.events) {
      if (event.streamId !== streamId || placeOf(event.id)!.number <= number) continue;
      // A stream begins with an event that only gives the client an id to come back with.
      if ('jsonrpc' in event.message) await send(event.id, event.message);
    }
    return streamId;
  }
}

function placeOf(eventId: string): { number: number; streamId: string } | undefined {
  const [, number, streamId] = /^(\d{1,15})\.(.{1,64})$/.exec(eventId) ?? [];
  return number && streamId ? { number: Number(number), streamId } : undefined;
}
