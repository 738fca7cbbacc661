import { batched } from './batched.js';

/** A run that the test ends, one after the other. */
function held() {
  const runs: { inputs: number[]; end: (outputs: number[] | Error) => void }[] = [];
  const call = batched<number, number>(
    (inputs) =>
      new Promise((resolve, reject) => {
        runs.push({
          inputs,
          end: (outputs) => (outputs instanceof Error ? reject(outputs) : resolve(outputs)),
        });
      }),
    3,
  );
  return { runs, call };
}

it('starts at once, and gathers what comes meanwhile', async () => {
  const { runs, call } = held();
  const answers = [1, 2, 3, 4, 5].map(call);
  expect(runs.map(({ inputs }) => inputs)).toEqual([[1]]);
  runs[0]!.end([10]);
  expect(await answers[0]).toBe(10);
  expect(runs[1]!.inputs).toEqual([2, 3, 4]);
  runs[1]!.end([20, 30, 40]);
  expect(await Promise.all(answers.slice(1, 4))).toEqual([20, 30, 40]);
  expect(runs[2]!.inputs).toEqual([5]);
  runs[2]!.end([50]);
  expect(await answers[4]).toBe(50);
});

it('fails those of a run together, and only those', async () => {
  const { runs, call } = held();
  const [first, second, third] = [1, 2, 3].map(call);
  runs[0]!.end(new Error('gone'));
  await expect(first).rejects.toThrow('gone');
  runs[1]!.end([20, 30]);
  expect([await second, await third]).toEqual([20, 30]);
});
