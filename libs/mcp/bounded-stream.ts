/**
 * `source` for a reader that may be slow or gone: of what it has not read yet about `limitBytes` are kept, and when more comes
 * the stream breaks and `source` is cancelled, as when `signal` aborts. `ended` is called once, however it ends.
 */
export function boundedStream(
  source: ReadableStream<Uint8Array>,
  limitBytes: number,
  signal: AbortSignal,
  ended: () => void,
): ReadableStream<Uint8Array> {
  const reader = source.getReader();
  // Ends a read under way, too.
  const cancel = () => void reader.cancel().catch(() => undefined);
  signal.addEventListener('abort', cancel);
  if (signal.aborted) cancel();

  async function copy(controller: ReadableStreamDefaultController<Uint8Array>) {
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return controller.close();
        if (controller.desiredSize! <= 0) throw new Error('the stream is not read');
        controller.enqueue(value);
      }
    } catch (error) {
      cancel();
      controller.error(error);
    } finally {
      signal.removeEventListener('abort', cancel);
      ended();
    }
  }

  const strategy: QueuingStrategy<Uint8Array> = new ByteLengthQueuingStrategy({ highWaterMark: limitBytes });
  // Not returned, so that what comes can be read before all of it is there.
  return new ReadableStream({ start: (controller) => void copy(controller), cancel }, strategy);
}
