import { EventEmitter, on } from 'node:events';
import { batched } from './batched.js';

interface Run {
  inputs: number[];
  end(outputs: number[] | Error): void;
}

/** Runs that the test ends, one after the other. */
function held() {
  const emitter = new EventEmitter();
  const runs = on(emitter, 'run');
  const call = batched<number, number>(
    (inputs) =>
      new Promise((resolve, reject) => {
        const end = (outputs: number[] | Error) =>
          outputs instanceof Error ? reject(outputs) : resolve(outputs);
        emitter.emit('run', { inputs, end } satisfies Run);
      }),
    3,
  );
  const next = async (): Promise<Run> => (await runs.next()).value[0];
  return { call, next };
}

it('runs those of one turn together, at most so many', async () => {
  const { call, next } = held();
  const answers = [1, 2, 3, 4].map(call);
  const first = await next();
  expect(first.inputs).toEqual([1, 2, 3]);
  first.end([10, 20, 30]);
  const second = await next();
  expect(second.inputs).toEqual([4]);
  second.end([40]);
  expect(await Promise.all(answers)).toEqual([10, 20, 30, 40]);
});

it('gathers what comes while a run is under way', async () => {
  const { call, next } = held();
  const early = call(1);
  const first = await next();
  const late = [2, 3].map(call);
  first.end([10]);
  expect(await early).toBe(10);
  const second = await next();
  expect(second.inputs).toEqual([2, 3]);
  second.end([20, 30]);
  expect(await Promise.all(late)).toEqual([20, 30]);
});

it('fails those of a run together, and only those', async () => {
  const { call, next } = held();
  const together = [1, 2].map(call);
  const first = await next();
  const late = call(3);
  first.end(new Error('gone'));
  for (const answer of together) await expect(answer).rejects.toThrow('gone');
  (await next()).end([30]);
  expect(await late).toBe(30);
});
