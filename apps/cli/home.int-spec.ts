import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { claimHome, findRunning } from './home.js';

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'longhaul-home-'));
  mkdirSync(join(directory, 'run'));
});

afterEach(() => rmSync(directory, { recursive: true, force: true }));

/** Another process that tries to claim the home; answers who holds it instead, and lives until it is killed. */
async function claimant() {
  const script = `
    const { claimHome } = await import(process.argv[1]);
    process.send({ holder: claimHome({ directory: process.argv[2] })?.pid ?? null });
    process.on('message', () => undefined);`;
  const home = join(import.meta.dirname, '../../dist/apps/cli/home.js');
  const child = spawn(process.execPath, ['--input-type=module', '-e', script, home, directory], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  const [{ holder }] = (await once(child, 'message')) as [{ holder: number | null }];
  const kill = async () => {
    child.kill('SIGKILL');
    await once(child, 'exit');
  };
  return { pid: child.pid, holder, kill };
}

describe('claimHome', () => {
  it('is given to one of many that ask at once', async () => {
    const all = await Promise.all(Array.from({ length: 6 }, claimant));
    const winners = all.filter(({ holder }) => holder === null);
    expect(winners).toHaveLength(1);
    expect(findRunning({ directory })?.pid).toBe(winners[0]?.pid);
    expect(claimHome({ directory })?.pid).toBe(winners[0]?.pid);
    await Promise.all(all.map(({ kill }) => kill()));
  });

  it('is free again when its holder was killed', async () => {
    const first = await claimant();
    await first.kill();
    expect(findRunning({ directory })).toBeUndefined();
    const second = await claimant();
    expect(second.holder).toBeNull();
    await second.kill();
  });
});
