import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';

/** For the servers and workers that are measured: --cpu-prof, for example. */
export const NODE_FLAGS = process.env.BENCH_NODE_FLAGS?.split(' ') ?? [];

/** What a process that was just started says first; throws when it ends before. */
export async function firstMessage<T>(child: ChildProcess): Promise<T> {
  const ended = once(child, 'exit').then(([code]) => {
    throw new Error(`${child.spawnargs.at(-1)} ended with ${code} before it was ready`);
  });
  const [message] = (await Promise.race([once(child, 'message'), ended])) as [T];
  // Its end is no news any more.
  ended.catch(() => undefined);
  return message;
}
