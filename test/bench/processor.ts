// What processes have used of the processors, which a busy machine blurs less than what a clock says. Linux only.
import { readFileSync, readdirSync } from 'node:fs';
import type { Database } from '@longhaul/persistence';

/** Linux counts in these, whatever the kernel's own clock is. */
const TICK_MS = 10;

interface Times {
  pid: number;
  parent: number;
  ownMs: number;
  /** Of children that have ended. */
  childrenMs: number;
}

function timesOf(pid: number): Times {
  // The name in parentheses may have spaces.
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /s, '')
    .split(' ');
  const ms = (...at: number[]) => at.reduce((sum, index) => sum + Number(fields[index]) * TICK_MS, 0);
  return { pid, parent: Number(fields[1]), ownMs: ms(11, 12), childrenMs: ms(13, 14) };
}

/** Milliseconds of processor time that a process has used so far. */
export const processorMs = (pid: number): number => timesOf(pid).ownMs;

export function ownMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** The same of a PostgreSQL with all its backends, by the pid of its first process. */
export function serverMs(postmaster: number): number {
  const { ownMs, childrenMs } = timesOf(postmaster);
  const pids = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
  const children = pids.flatMap((pid) => {
    try {
      return [timesOf(pid)];
    } catch {
      return [];
    }
  });
  return children
    .filter(({ parent }) => parent === postmaster)
    .reduce((sum, child) => sum + child.ownMs, ownMs + childrenMs);
}

export async function postmasterOf(db: Database): Promise<number> {
  const [row] = await db.$queryRaw<{ file: string }[]>`
    SELECT current_setting('data_directory') || '/postmaster.pid' AS file`;
  return Number(readFileSync(row!.file, 'utf8').split('\n')[0]);
}
