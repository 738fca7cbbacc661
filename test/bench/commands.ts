// npm run bench:commands: what a client of one VM feels, in milliseconds.
import { performance } from 'node:perf_hooks';
import type { Vm } from '@longhaul/persistence';
import { Stack, readToEnd, type Call } from '../e2e/stack.js';

const TRIES = 30;

async function timed(use: () => Promise<unknown>): Promise<number> {
  const begun = performance.now();
  await use();
  return performance.now() - begun;
}

const percentile = (values: number[], share: number) =>
  Math.round([...values].sort((a, b) => a - b)[Math.ceil(values.length * share) - 1]! * 10) / 10;

/** Submissions on a VM that works hard, each on a slot of its own, cancelled at once. */
async function submission(call: Call, vm: Vm): Promise<number[]> {
  const busy = await call('start_vm_command', { vm_id: vm.id, command: 'while :; do :; done' });
  const times: number[] = [];
  for (let n = 0; n < TRIES; n++) {
    let id: unknown;
    times.push(
      await timed(async () => {
        ({ command_id: id } = await call('start_vm_command', { vm_id: vm.id, command: 'sleep 100' }));
      }),
    );
    await call('cancel_job', { job_id: id });
    await call('wait_for_job', { job_id: id });
  }
  await call('cancel_vm_command', { command_id: busy.command_id });
  return times;
}

async function measure(stack: Stack) {
  await stack.startWorker();
  const vm = await stack.createVm({ commandSlots: 4 });
  const call = await stack.clientV2();

  const exec: number[] = [];
  for (let n = 0; n < TRIES; n++) {
    exec.push(await timed(() => call('exec_vm_command', { vm_id: vm.id, command: 'true' })));
  }
  const raw: number[] = [];
  for (let n = 0; n < TRIES; n++) {
    const run = stack.provider.guest(vm.id).session((guest) => guest.run({ path: 'true' }, 10_000));
    raw.push(await timed(() => run));
  }
  const submit = await submission(call, vm);

  const command = 'head -c 20971520 /dev/urandom';
  const { command_id: id } = await call('start_vm_command', { vm_id: vm.id, command });
  const read = await timed(() => readToEnd(call, id as string));
  return {
    exec_true_p50: percentile(exec, 0.5),
    exec_true_p95: percentile(exec, 0.95),
    exec_to_raw: Math.round((percentile(exec, 0.5) / percentile(raw, 0.5)) * 100) / 100,
    submit_on_busy_vm_p50: percentile(submit, 0.5),
    submit_on_busy_vm_p95: percentile(submit, 0.95),
    output_20mb_mb_per_s: Math.round((20 * 1048.576) / read / 0.1) / 10,
  };
}

export default async function commands(): Promise<object> {
  const stack = await Stack.start();
  try {
    return await measure(stack);
  } finally {
    await stack.stop();
  }
}
