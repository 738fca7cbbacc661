import { randomUUID } from 'node:crypto';
import {
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { AppError } from '@longhaul/errors';
import { interruptible } from './interruptible.js';

export interface LockOptions {
  /** Folder on a local file system that all processes of this host share. */
  directory: string;
  /** Letters, digits, `.`, `_`, `-`. */
  name: string;
  /** How long to wait for the lock, milliseconds. Default 10 s. */
  waitMs?: number;
  /** How long `use` may last, milliseconds; afterwards others take the lock over. Default 15 s. */
  holdMs?: number;
  /** Cuts off a former holder that is alive (a stopped process, say) but past its deadline; called before `use`. */
  evict?: () => Promise<void>;
  signal?: AbortSignal;
}

/** What each holder of a lock is told by the former one, may change, and tells the next one. */
export interface Handover {
  /** The former holder died, was cut off or left with this set: what the lock protects may be in the middle of something. */
  mustTidy: boolean;
}

/**
 * Runs `use` while no other process of this host, and nobody else in this one, holds the lock. `use` gets a signal
 * that is aborted at the deadline: from then on it must not touch what the lock protects, and `withLock` rejects.
 * Errors: `unavailable` when the lock was not free in time or the hold was too long; what `use` or `evict` throw.
 *
 * The lock is a folder of numbered files, the generations; the highest one is valid. Whoever finds it released, its
 * holder dead or late, creates the next number with link(2), which exactly one process can. No file that somebody
 * may still judge is ever changed by another process, so that taking over from a dead holder has no race.
 */
export async function withLock<T>(
  options: LockOptions,
  use: (signal: AbortSignal, handover: Handover) => Promise<T>,
): Promise<T> {
  if (!/^[\w.-]{1,100}$/.test(options.name)) throw new Error(`Not a lock name: ${options.name}`);
  const folder = resolve(options.directory, `${options.name}.lock`);
  const giveUpAt = now() + (options.waitMs ?? 10_000);
  const leaveQueue = await queueInProcess(folder, giveUpAt, options);
  try {
    const hold = await acquire(folder, giveUpAt, options);
    try {
      if (hold.record.mustEvict) {
        await options.evict?.();
        hold.record.mustEvict = false;
      }
      return await beforeDeadline(hold.record, options, use);
    } finally {
      publish(folder, { ...hold.record, released: true }, (prepared) =>
        renameSync(prepared, join(folder, `${hold.generation}`)),
      );
    }
  } finally {
    leaveQueue();
  }
}

interface LockRecord extends Handover {
  pid: number;
  /** With the pid it names one process for ever: pids are used again. */
  startTime: string;
  bootId: string;
  /** Pids mean nothing across containers: a holder in another one is judged by its deadline only. */
  pidNamespace: string;
  /** Milliseconds of the clock that starts at boot, which all processes share and nobody sets. */
  deadline: number;
  /** A late holder is not cut off yet; outlives the process that should have done it. */
  mustEvict: boolean;
  released?: boolean;
}

interface Hold {
  generation: number;
  record: LockRecord;
}

const now = () => Number(process.hrtime.bigint() / 1_000_000n);

let identity: Pick<LockRecord, 'pid' | 'startTime' | 'bootId' | 'pidNamespace'> | undefined;

function ownIdentity() {
  return (identity ??= {
    pid: process.pid,
    startTime: processStartTime(process.pid) ?? '',
    bootId: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
    pidNamespace: readlinkSync('/proc/self/ns/pid'),
  });
}

async function acquire(folder: string, giveUpAt: number, options: LockOptions): Promise<Hold> {
  mkdirSync(folder, { recursive: true });
  for (;;) {
    options.signal?.throwIfAborted();
    const hold = tryAcquire(folder, options.holdMs ?? 15_000);
    if (hold) return hold;
    if (now() >= giveUpAt) throw notFree(options.name);
    // Holds last some milliseconds; the random part keeps waiting processes out of step.
    await sleep(2 + Math.random() * 8, undefined, { signal: options.signal });
  }
}

function tryAcquire(folder: string, holdMs: number): Hold | undefined {
  const last = highest(folder);
  const former = last > 0 ? readRecord(join(folder, `${last}`)) : undefined;
  if (former === 'gone' || (former && isHeld(former))) return undefined;

  const generation = last + 1;
  const mustEvict = former !== undefined && (former.mustEvict || (!former.released && isAlive(former)));
  const mustTidy = former !== undefined && (former.mustTidy || !former.released);
  const record: LockRecord = { ...ownIdentity(), deadline: now() + holdMs, mustEvict, mustTidy };
  const mine = join(folder, `${generation}`);
  if (!publish(folder, record, (prepared) => linkSync(prepared, mine))) return undefined;
  if (highest(folder) !== generation) {
    // Others took and left this number and higher ones since we looked. A listing of so few names is one system
    // call, and the highest file is never removed, so that a higher one cannot hide from it.
    rmSync(mine, { force: true });
    return undefined;
  }
  // Never a higher number: this process may have been stopped here until it was late itself.
  const outdated = readdirSync(folder).filter((file) => file.startsWith('new-') || Number(file) < generation);
  for (const file of outdated) rmSync(join(folder, file), { force: true });
  return { generation, record };
}

/** Makes a complete record appear at once. False when another process won the name, or swept the prepared file away. */
function publish(folder: string, record: LockRecord, place: (prepared: string) => void): boolean {
  const prepared = join(folder, `new-${randomUUID()}`);
  try {
    writeFileSync(prepared, JSON.stringify(record));
    place(prepared);
    return true;
  } catch (error) {
    if (['EEXIST', 'ENOENT'].includes((error as NodeJS.ErrnoException).code ?? '')) return false;
    throw error;
  } finally {
    rmSync(prepared, { force: true });
  }
}

/** The highest generation in the folder, 0 when there is none. */
function highest(folder: string): number {
  return readdirSync(folder).reduce(
    (max, file) => (/^\d{1,15}$/.test(file) ? Math.max(max, Number(file)) : max),
    0,
  );
}

/** undefined for a file that a crash of the host left empty or torn: nobody holds it. */
function readRecord(file: string): LockRecord | 'gone' | undefined {
  try {
    const record = JSON.parse(readFileSync(file, 'utf8')) as LockRecord;
    return typeof record?.deadline === 'number' && record.bootId === ownIdentity().bootId
      ? record
      : undefined;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'gone' : undefined;
  }
}

function isHeld(record: LockRecord): boolean {
  return !record.released && now() < record.deadline && isAlive(record);
}

function isAlive(record: LockRecord): boolean {
  if (record.pidNamespace !== ownIdentity().pidNamespace) return true;
  return processStartTime(record.pid) === record.startTime;
}

/** undefined when there is no such process, or when it is dead and only its parent has not noticed. */
function processStartTime(pid: number): string | undefined {
  try {
    // The program's name, in parentheses, may itself hold parentheses and spaces.
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)?.split(' ') ?? [];
    return ['Z', 'X'].includes(fields[0] ?? '') ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

/** Who waits for one lock in this process, one after another. */
interface Queue {
  last: Promise<void>;
  /** When another process last had its chance. */
  since: number;
}

const queues = new Map<string, Queue>();
/** A process that has the lock for so long, hold after hold, then leaves it alone for longer than others wait between two looks. */
const TURN_MS = 1_000;
const BETWEEN_TURNS_MS = 20;

/** Within this process: first come, first served, and without touching files. Resolves to the function that ends the turn. */
async function queueInProcess(key: string, giveUpAt: number, options: LockOptions): Promise<() => void> {
  const queue = queues.get(key) ?? { last: Promise.resolve(), since: now() };
  const isFirst = !queues.has(key);
  const before = queue.last;
  let leave = () => {};
  const turn = new Promise<void>((resolve) => (leave = resolve));
  const mine = Promise.all([before, turn]).then(() => {
    if (queue.last === mine) queues.delete(key);
  });
  queue.last = mine;
  queues.set(key, queue);
  try {
    if (isFirst) return leave;
    await interruptible(before, giveUpAt - now(), () => notFree(options.name), options.signal);
    if (now() - queue.since > TURN_MS) {
      await sleep(BETWEEN_TURNS_MS);
      queue.since = now();
    }
    return leave;
  } catch (error) {
    leave();
    throw error;
  }
}

function notFree(name: string): AppError {
  return new AppError('unavailable', `Another task kept "${name}" busy for too long. Try again later.`);
}

async function beforeDeadline<T>(
  hold: LockRecord,
  options: LockOptions,
  use: (signal: AbortSignal, handover: Handover) => Promise<T>,
): Promise<T> {
  const tooLong = () =>
    new AppError('unavailable', `The work on "${options.name}" took too long and was cut off.`);
  const over = new AbortController();
  try {
    if (now() >= hold.deadline) throw tooLong();
    return await interruptible(use(over.signal, hold), hold.deadline - now(), tooLong, options.signal);
  } catch (error) {
    over.abort(error);
    throw error;
  }
}
