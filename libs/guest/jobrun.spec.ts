import { spawnSync } from 'node:child_process';
import { eventually } from '../../test/support/eventually.js';
import { processesWith } from '../../test/support/processes.js';
import { SUPERVISE } from './jobrun.js';

const functionOf = (name: string) => new RegExp(`^${name}\\(\\) \\{\\n[^]*?\\n\\}$`, 'm').exec(SUPERVISE)![0];

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
  await eventually(() => processesWith((text) => text.includes(mark)).length === 0);
});
