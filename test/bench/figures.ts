import { performance } from 'node:perf_hooks';

/** Milliseconds that `use` takes. */
export async function timed(use: () => Promise<unknown>): Promise<number> {
  const begun = performance.now();
  await use();
  return performance.now() - begun;
}

/** `share` from 0 to 1. */
export function percentile(values: number[], share: number): number {
  return values.toSorted((a, b) => a - b)[Math.max(0, Math.ceil(values.length * share) - 1)]!;
}

export const median = (values: number[]) => percentile(values, 0.5);

export const round = (value: number, digits = 2) => Number(value.toFixed(digits));
