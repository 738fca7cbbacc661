// A short command as a client feels it, against a raw guest-exec poll loop that runs the same in the same guest: exec_vm_command,
// and a command that is started and waited for.
import { setTimeout as pause } from 'node:timers/promises';
import { median, round, timed } from './figures.js';
import { onGuests, type BenchGuest } from './guests.js';

const ROUNDS = 25;
/** So that no side is hit by what the guest still does for the other. */
const REST_MS = 300;
const COMMAND = 'echo done';

export default async function exec(): Promise<object> {
  const figures: Record<string, number> = {};
  await onGuests(async (guest) => {
    const ways = { exec: () => execute(guest), command: () => startAndWait(guest), raw: () => raw(guest) };
    const times = { exec: [] as number[], command: [] as number[], raw: [] as number[] };
    // In turns, so that what else the machine does meets all of them.
    for (let n = 0; n < ROUNDS; n++) {
      for (const way of ['exec', 'command', 'raw'] as const) {
        times[way].push(await timed(ways[way]));
        await pause(REST_MS);
      }
    }
    const ms = { exec: median(times.exec), command: median(times.command), raw: median(times.raw) };
    console.log(
      `exec on ${guest.name}: raw ${round(ms.raw, 1)} ms, exec_vm_command ${round(ms.exec, 1)} ms, ` +
        `start_vm_command and wait_for_job ${round(ms.command, 1)} ms`,
    );
    const suffix = guest.name === 'vm' ? '' : `_${guest.name}`;
    figures[`exec_to_raw${suffix}`] = round(ms.exec / ms.raw);
    figures[`command_to_raw${suffix}`] = round(ms.command / ms.raw);
  });
  return figures;
}

async function execute({ call, vm }: BenchGuest): Promise<void> {
  const answer = await call('exec_vm_command', { vm_id: vm.id, command: COMMAND });
  requireDone(answer.stdout);
}

async function startAndWait({ call, vm }: BenchGuest): Promise<void> {
  const { command_id: id } = await call('start_vm_command', { vm_id: vm.id, command: COMMAND });
  await call('wait_for_job', { job_id: id });
  const log = await call('read_vm_command_logs', { command_id: id });
  requireDone(log.stdout);
}

async function raw({ channel }: BenchGuest): Promise<void> {
  const program = { path: 'sh', args: ['-c', COMMAND] };
  const { stdout } = await channel.session((session) => session.run(program, 30_000));
  requireDone(stdout.toString());
}

function requireDone(stdout: unknown): void {
  if (stdout !== 'done\n') throw new Error(`the command printed ${JSON.stringify(stdout)}`);
}
