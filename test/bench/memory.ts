// How much more memory a worker takes for 1 GB of output than for 100 MB; nothing of it may be dropped.
import { readFileSync } from 'node:fs';
import { Cluster } from '../support/cluster.js';

const MB = 1_000_000;

export default async function memory(): Promise<object> {
  const env = { LOG_STREAM_LIMIT: String(2_000 * MB) };
  const cluster = await Cluster.start({ apis: 1, workers: 1, swift: false, relays: false, env });
  try {
    const call = await cluster.stack.clientV2();
    const { vm } = await cluster.addAgentVm();
    const { pid } = cluster.members.get('worker-1')!.child!;
    const peakAfter = async (bytes: number) => {
      const command = `head -c ${bytes} /dev/urandom`;
      const { command_id: id } = await call('start_vm_command', { vm_id: vm.id, command });
      const job = await cluster.stack.ended(id as string);
      const shown = await call('get_vm_command_output', { command_id: id, stdout_tail_bytes: 1 });
      if (job.state !== 'succeeded' || shown.next_stdout_offset !== bytes)
        throw new Error('bytes are missing');
      return peakMb(pid!);
    };
    const idle = peakMb(pid!);
    const [little, much] = [await peakAfter(100 * MB), await peakAfter(1_000 * MB)];
    console.log(
      `memory: the worker's peak was ${idle} MB, ${little} MB after 100 MB of output, ${much} MB after 1 GB`,
    );
    return { worker_growth_mb: much - little };
  } finally {
    await cluster.stop();
  }
}

/** The most that it ever had in memory, in MB. */
function peakMb(pid: number): number {
  const [, kib] = /VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))!;
  return Math.round((Number(kib) * 1024) / MB);
}
