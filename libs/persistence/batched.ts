import { setImmediate } from 'node:timers/promises';

/**
 * Calls of one turn of the event loop share a run, and so do those that come while one is under way: a busy process pays
 * one statement for many calls, an idle one waits for nothing. No call is part of a run that began before it. `run` answers
 * in the order of its inputs, at most `limit` of them; when it fails, so do all calls of that run.
 */
export function batched<Input, Output>(
  run: (inputs: Input[]) => Promise<Output[]>,
  limit: number,
): (input: Input) => Promise<Output> {
  const waiting: { input: Input; resolve: (output: Output) => void; reject: (error: unknown) => void }[] = [];
  let running = false;

  async function drain() {
    running = true;
    while (waiting.length > 0) {
      await setImmediate();
      const calls = waiting.splice(0, limit);
      try {
        const outputs = await run(calls.map(({ input }) => input));
        calls.forEach(({ resolve }, index) => resolve(outputs[index]!));
      } catch (error) {
        calls.forEach(({ reject }) => reject(error));
      }
    }
    running = false;
  }

  return (input) =>
    new Promise((resolve, reject) => {
      waiting.push({ input, resolve, reject });
      if (!running) void drain();
    });
}
