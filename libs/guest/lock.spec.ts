import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { withLock } from './lock.js';

const HERE = import.meta.dirname;
const children: ChildProcess[] = [];
let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'longhaul-lock-'));
});

afterEach(async () => {
  for (const child of children.splice(0)) {
    const ended = child.exitCode !== null || child.signalCode !== null ? undefined : once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  }
  rmSync(directory, { recursive: true });
});

function startChild(...args: string[]): ChildProcess {
  const loader = join(HERE, '../../test/support/register-typescript.mjs');
  const child = spawn(
    process.execPath,
    ['--no-warnings', '--import', loader, join(HERE, '../../test/support/lock-child.ts'), directory, ...args],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  children.push(child);
  return child;
}

async function startHolder(holdMs: number, mode = 'hold') {
  const child = startChild(mode, String(holdMs));
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  expect((await lines.next()).value).toBe('held');
  return { child, nextLine: async () => (await lines.next()).value as string | undefined };
}

const lock = () => ({ directory, name: 'vm' });

it('lets one at a time in, first come first served, within a process', async () => {
  const order: string[] = [];
  const enter = (who: string) =>
    withLock(lock(), async () => {
      order.push(`${who} in`);
      await new Promise((resolve) => setImmediate(resolve));
      order.push(`${who} out`);
    });
  await Promise.all([enter('a'), enter('b'), enter('c')]);
  expect(order).toEqual(['a in', 'a out', 'b in', 'b out', 'c in', 'c out']);
});

it('loses no update of 20 processes that each add 50 to a counter', async () => {
  writeFileSync(join(directory, 'counter'), '0');
  const codes = Array.from({ length: 20 }, async () => (await once(startChild('count', '50'), 'exit'))[0]);
  expect(new Set(await Promise.all(codes))).toEqual(new Set([0]));
  expect(readFileSync(join(directory, 'counter'), 'utf8')).toBe('1000');
  expect(readdirSync(join(directory, 'vm.lock'))).toHaveLength(1);
}, 60_000);

it('lets another process in between the many of one that take it in turns for ever', async () => {
  const { child } = await startHolder(700, 'crowd');
  for (let time = 0; time < 6; time++) await withLock(lock(), async () => {});
  child.kill('SIGKILL');
}, 60_000);

it('is free at once when its holder was killed, and evicts nobody', async () => {
  const { child } = await startHolder(60_000);
  child.kill('SIGKILL');
  let evictions = 0;
  await withLock({ ...lock(), evict: async () => void evictions++ }, async () => {});
  expect(evictions).toBe(0);
});

it('waits for a live holder and says so when it waited too long', async () => {
  await startHolder(60_000);
  await expect(withLock({ ...lock(), waitMs: 50 }, async () => {})).rejects.toMatchObject({
    code: 'unavailable',
  });
});

it('evicts a stopped holder past its deadline, and that one learns of it when it goes on', async () => {
  const { child, nextLine } = await startHolder(300);
  child.kill('SIGSTOP');
  const steps: string[] = [];
  await withLock({ ...lock(), evict: async () => void steps.push('evict') }, async () => {
    steps.push('use');
    child.kill('SIGCONT');
    expect(await nextLine()).toMatch(/took too long/);
    await once(child, 'exit');
    // Its release must not have freed ours.
    const another = startChild('try');
    await once(another, 'exit');
    expect(another.exitCode).toBe(1);
  });
  expect(steps).toEqual(['evict', 'use']);
});

it('evicts again when the process that should have done it failed to', async () => {
  const { child } = await startHolder(100);
  child.kill('SIGSTOP');
  const failing = withLock(
    { ...lock(), evict: () => Promise.reject(new Error('no monitor')) },
    async () => {},
  );
  await expect(failing).rejects.toThrow('no monitor');
  let evictions = 0;
  const evict = async () => void evictions++;
  await withLock({ ...lock(), evict }, async () => {});
  await withLock({ ...lock(), evict }, async () => {});
  expect(evictions).toBe(1);
});

it('tells whoever comes after a killed holder that it must tidy up, until one has', async () => {
  const told: boolean[] = [];
  const enter = (leaveWith: boolean) =>
    withLock(lock(), async (_signal, handover) => {
      told.push(handover.mustTidy);
      handover.mustTidy = leaveWith;
    });
  await enter(false);
  const { child } = await startHolder(60_000);
  child.kill('SIGKILL');
  await enter(true);
  await enter(false);
  await enter(false);
  expect(told).toEqual([false, true, true, false]);
});

it('cuts a use off at its deadline and lets the next one in', async () => {
  let signal: AbortSignal | undefined;
  const endless = withLock({ ...lock(), holdMs: 50 }, (given) => {
    signal = given;
    return new Promise(() => {});
  });
  const next = withLock(lock(), async () => signal?.aborted);
  await expect(endless).rejects.toMatchObject({ code: 'unavailable' });
  expect(await next).toBe(true);
});

it('lets a waiter leave on its signal without breaking the queue', async () => {
  const leave = new AbortController();
  let finish = () => {};
  const first = withLock(lock(), () => new Promise<void>((resolve) => (finish = resolve)));
  const second = withLock({ ...lock(), signal: leave.signal }, async () => 'second');
  const third = withLock(lock(), async () => 'third');
  leave.abort(new Error('not needed'));
  await expect(second).rejects.toThrow('not needed');
  finish();
  await first;
  expect(await third).toBe('third');
});

it('takes over what a crash of the host left torn', async () => {
  await withLock(lock(), async () => {});
  const [file] = readdirSync(join(directory, 'vm.lock'));
  writeFileSync(join(directory, 'vm.lock', file!), '');
  expect(await withLock(lock(), async () => 'in')).toBe('in');
});

it.each(['', '../x', 'a/b', 'x'.repeat(101)])('refuses the name %j', async (name) => {
  await expect(withLock({ directory, name }, async () => {})).rejects.toThrow('Not a lock name');
});
