// How old a line of a running command is when a client reads it that asks again 100 ms after each answer.
import { readFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import type { GuestChannel } from '@longhaul/guest';
import { median, percentile, round } from './figures.js';
import { onGuests } from './guests.js';

const LINES = 60;
export const READ_AGAIN_MS = 100;
/** The guest's own clock, which counts from its boot, with built-ins of sh alone; not in step with anybody's polls. */
const PRINT_CLOCK =
  'while read -r up rest </proc/uptime; do echo "$up"; sleep 0.$((4 + n % 4))7; n=$((n + 1)); done';

export default async function tail(): Promise<object> {
  const figures: Record<string, number> = {};
  await onGuests(async ({ name, call, vm, channel }) => {
    const ahead = await clockAhead(channel);
    const started = await call('start_vm_command', { vm_id: vm.id, command: PRINT_CLOCK });
    const lags: number[] = [];
    for (let offset = 0; lags.length < LINES;) {
      const log = await call('read_vm_command_logs', {
        command_id: started.command_id,
        stdout_offset: offset,
      });
      const now = uptimeMs(readFileSync('/proc/uptime', 'utf8'));
      for (const line of (log.stdout as string).split('\n').filter(Boolean))
        lags.push(now + ahead - uptimeMs(line));
      offset = log.next_stdout_offset as number;
      await pause(READ_AGAIN_MS);
    }
    await call('cancel_vm_command', { command_id: started.command_id });
    const [p50, p95] = [median(lags), percentile(lags, 0.95)].map(Math.round);
    console.log(`tail on ${name}: a line is ${p50} ms old when it is read, p95 ${p95} ms`);
    figures[name === 'vm' ? 'tail_lag_p95_ms' : `tail_lag_p95_ms_${name}`] = p95!;
  });
  return figures;
}

/** How far the guest's clock is ahead of ours; by the quickest of many looks. */
async function clockAhead(channel: GuestChannel): Promise<number> {
  const looks: { took: number; ahead: number }[] = [];
  await channel.session(async (session) => {
    for (let n = 0; n < 30; n++) {
      const before = uptimeMs(readFileSync('/proc/uptime', 'utf8'));
      const begun = performance.now();
      const found = await session.readFile('/proc/uptime', 0, 100);
      const took = performance.now() - begun;
      looks.push({ took, ahead: uptimeMs(found!.data.toString()) - before - took / 2 });
    }
  });
  return round(looks.toSorted((a, b) => a.took - b.took)[0]!.ahead, 0);
}

export const uptimeMs = (text: string) => Number(text.split(' ')[0]) * 1000;
