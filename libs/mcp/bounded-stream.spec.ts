import { boundedStream } from './bounded-stream.js';

function source() {
  let controller!: ReadableStreamDefaultController<Uint8Array>;
  const state = { cancelled: false };
  const stream = new ReadableStream<Uint8Array>({
    start: (given) => void (controller = given),
    cancel: () => void (state.cancelled = true),
  });
  const put = (text: string) => controller.enqueue(Buffer.from(text));
  return { stream, state, put, end: () => controller.close() };
}

const open = (limit: number, signal = new AbortController().signal) => {
  const from = source();
  let hasEnded!: () => void;
  const ended = new Promise<void>((resolve) => (hasEnded = resolve));
  return { ...from, ended, bounded: boundedStream(from.stream, limit, signal, hasEnded) };
};

it('passes what comes while it comes, and the end', async () => {
  const { bounded, put, end, ended } = open(100);
  const reader = bounded.getReader();
  const read = async () => Buffer.from((await reader.read()).value!).toString();
  put('one');
  expect(await read()).toBe('one');
  put('two');
  end();
  expect(await read()).toBe('two');
  expect(await reader.read()).toMatchObject({ done: true });
  await ended;
});

it('breaks when nobody reads more than it keeps, and frees its source', async () => {
  const { bounded, put, ended, state } = open(10);
  put('x'.repeat(20));
  put('one too many');
  await ended;
  expect(state.cancelled).toBe(true);
  await expect(bounded.getReader().read()).rejects.toThrow('not read');
});

it('frees its source when the reader goes, with or without saying so', async () => {
  const one = open(10);
  await one.bounded.cancel();
  await one.ended;
  expect(one.state.cancelled).toBe(true);

  const controller = new AbortController();
  const other = open(10, controller.signal);
  controller.abort();
  await other.ended;
  expect(other.state.cancelled).toBe(true);
});
