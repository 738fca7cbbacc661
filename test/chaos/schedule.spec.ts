import { Random } from './random.js';
import { schedule } from './schedule.js';

const shape = {
  apis: ['api-1', 'api-2'],
  workers: ['worker-1', 'worker-2', 'worker-3'],
  servers: ['postgres', 'redis', 'swift'],
  agents: ['agent-1', 'agent-2'],
  vms: ['vm-1'],
};

it('is the same for the same seed, and another one for another', () => {
  const of = (seed: number) => schedule(new Random(seed), 60_000, shape);
  expect(of(7)).toEqual(of(7));
  expect(of(8)).not.toEqual(of(7));
});

it.each([1, 2, 3, 4, 5])(
  'has every kind of fault, and one at a time at each target, with seed %i',
  (seed) => {
    const faults = schedule(new Random(seed), 300_000, shape);
    expect(new Set(faults.map(({ kind }) => kind)).size).toBe(23);
    for (const { target, atMs, number } of faults)
      for (const other of faults.filter((fault) => fault.target === target && fault.number < number))
        expect(other.atMs + other.forMs).toBeLessThan(atMs);
  },
);
