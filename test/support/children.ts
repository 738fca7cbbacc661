import { readFileSync } from 'node:fs';

/** Ids of the processes that this one has started and not buried. */
export function childrenOf(pid: number): number[] {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  return children ? children.split(' ').map(Number) : [];
}
