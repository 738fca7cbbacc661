import { spawnSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { eventually } from '../../test/support/eventually.js';
import { SUPERVISE } from './jobrun.js';

const functionOf = (name: string) => new RegExp(`^${name}\\(\\) \\{\\n[^]*?\\n\\}$`, 'm').exec(SUPERVISE)![0];

/** Pids of those that have `variable` in their environment. */
const processesWith = (variable: string) =>
  readdirSync('/proc').filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/environ`, 'utf8').includes(variable);
    } catch {
      return false;
    }
  });

it('a timer that is stopped at whatever moment leaves no process behind', async () => {
  const loops = `
    deadline=99999999 turn=0
    while [ "$turn" -lt 1000 ]; do
      turn=$((turn + 1))
      (
        start_timer
        count=$((turn % 200 * 40))
        while [ "$count" -gt 0 ]; do count=$((count - 1)); done
        kill "$timer"
      )
    done`;
  const program = [functionOf('look_at_clock'), functionOf('start_timer'), loops].join('\n');
  const mark = `LONGHAUL_TEST_TIMER=${process.pid}`;
  const env = { ...process.env, LONGHAUL_TEST_TIMER: String(process.pid) };
  spawnSync('/bin/sh', ['-c', program], { env, stdio: 'ignore' });
  await eventually(() => processesWith(mark).length === 0);
});
