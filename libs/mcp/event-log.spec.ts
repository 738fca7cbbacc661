import type { JSONRPCMessage } from '@modelcontextprotocol/server';
import { EventLog } from './event-log.js';

const message = (id: number, text = ''): JSONRPCMessage => ({ jsonrpc: '2.0', id, result: { text } });

async function replay(log: EventLog, after: string) {
  const sent: unknown[] = [];
  const streamId = await log.replayEventsAfter(after, {
    send: async (_id, sentMessage) => void sent.push((sentMessage as { id?: number }).id),
  });
  return { streamId, sent };
}

it('gives what came later on the same stream, without the event that only opened it', async () => {
  const log = new EventLog(10_000);
  const opened = await log.storeEvent('a', {} as JSONRPCMessage);
  await log.storeEvent('a', {} as JSONRPCMessage);
  const first = await log.storeEvent('a', message(1));
  await log.storeEvent('b', message(2));
  await log.storeEvent('a', message(3));
  expect(await replay(log, opened)).toEqual({ streamId: 'a', sent: [1, 3] });
  expect(await replay(log, first)).toEqual({ streamId: 'a', sent: [3] });
});

it('forgets the oldest when it is full, but never the newest', async () => {
  const log = new EventLog(1_000);
  const opened = await log.storeEvent('a', {} as JSONRPCMessage);
  for (const id of [1, 2, 3, 4, 5]) await log.storeEvent('a', message(id, 'x'.repeat(200)));
  expect((await replay(log, opened)).sent).toEqual([4, 5]);
  await log.storeEvent('a', message(6, 'x'.repeat(5_000)));
  expect((await replay(log, opened)).sent).toEqual([6]);
});

it('knows ids of no other form', async () => {
  const log = new EventLog(1_000);
  for (const id of ['', 'a', '1', `1.${'x'.repeat(65)}`, `${'9'.repeat(16)}.a`])
    expect(await log.getStreamIdForEventId(id)).toBeUndefined();
});
