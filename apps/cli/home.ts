import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  linkSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { startTimeOf } from '@longhaul/persistence/embedded';
import { ensureSystemUser } from '@longhaul/vm-providers';
import { fromEnvironment } from './environment.js';

const SYSTEM_USER = 'longhaul';
const isRoot = process.getuid?.() === 0;

/** Where Longhaul keeps everything: postgres/, images/, vms/, locks/, run/, log/ and ready.json. */
export interface Home {
  directory: string;
  /** As root only: who PostgreSQL and QEMU run as. */
  systemUser?: string;
}

/** LONGHAUL_HOME, whether or not it is there. */
export const homeDirectory = () =>
  resolve(fromEnvironment('LONGHAUL_HOME') ?? (isRoot ? '/var/lib/longhaul' : '.longhaul'));

/** LONGHAUL_HOME, made when missing, as is the system user when we are root. */
export function openHome(): Home {
  const path = homeDirectory();
  mkdirSync(path, { recursive: true, mode: 0o700 });
  const directory = realpathSync(path);
  // The system user must get through to what it owns below. All that root itself reads stays root's.
  if (isRoot) chmodSync(directory, 0o755);
  for (const name of ['run', 'log']) mkdirSync(join(directory, name), { recursive: true, mode: 0o700 });
  if (!isRoot) return { directory };
  ensureSystemUser(SYSTEM_USER);
  checkSystemUser(directory);
  return { directory, systemUser: SYSTEM_USER };
}

function checkSystemUser(home: string): void {
  const [uid, gid] = ['-u', '-g'].map((flag) =>
    Number(execFileSync('id', [flag, SYSTEM_USER], { encoding: 'utf8' })),
  );
  if (spawnSync('test', ['-x', home], { uid, gid, cwd: '/' }).status !== 0) {
    throw new Error(
      `The system user ${SYSTEM_USER} cannot get into ${home}: a folder above it is closed to others.`,
    );
  }
}

export interface ProcessRecord {
  pid: number;
  startTime: string;
}

export function isAlive({ pid, startTime }: ProcessRecord): boolean {
  return startTimeOf(pid) === startTime;
}

/**
 * Makes this process the one that runs this home until it ends; answers the living one if there is another. The highest
 * numbered file names the holder. A number can be made once only, so two cannot take over from the same dead holder.
 */
export function claimHome({ directory }: Pick<Home, 'directory'>): ProcessRecord | undefined {
  const run = join(directory, 'run');
  const prepared = join(run, `claim.${process.pid}`);
  const mine: ProcessRecord = { pid: process.pid, startTime: startTimeOf(process.pid) ?? '' };
  writeFileSync(prepared, JSON.stringify(mine));
  try {
    for (;;) {
      const last = claims(run).at(-1) ?? 0;
      const holder = last > 0 ? readRecord(join(run, `up.${last}`)) : undefined;
      if (holder && isAlive(holder)) return holder;
      try {
        linkSync(prepared, join(run, `up.${last + 1}`));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'EEXIST') continue;
        throw error;
      }
      for (const old of claims(run)) if (old <= last) rmSync(join(run, `up.${old}`), { force: true });
      return undefined;
    }
  } finally {
    rmSync(prepared, { force: true });
  }
}

/** The process that runs this home, if one does. */
export function findRunning({ directory }: Pick<Home, 'directory'>): ProcessRecord | undefined {
  const run = join(directory, 'run');
  const last = claims(run).at(-1);
  const holder = last === undefined ? undefined : readRecord(join(run, `up.${last}`));
  return holder && isAlive(holder) ? holder : undefined;
}

export function readRecord(path: string): ProcessRecord | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as ProcessRecord;
  } catch {
    return undefined;
  }
}

function claims(run: string): number[] {
  const numbers = readdirSync(run).flatMap((name) => /^up\.(\d+)$/.exec(name)?.[1] ?? []);
  return numbers.map(Number).sort((a, b) => a - b);
}
