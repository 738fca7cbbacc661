// 200 commands in 200 guests (agents in namespaces), all followed by one worker: how old a line is when one of ten clients reads it,
// that none falls behind, and what it costs the worker.
import { readFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import type { Call } from '../e2e/stack.js';
import { Cluster } from '../support/cluster.js';
import { eventually } from '../support/eventually.js';
import { median, percentile, round } from './figures.js';
import { processorMs } from './processor.js';
import { READ_AGAIN_MS, uptimeMs } from './tail.js';

const COMMANDS = 200;
const READERS = 10;
const MEASURE_MS = 20_000;
/** Every two seconds, with built-ins but for the sleep. */
const PRINT = 'while read -r up rest </proc/uptime; do echo "$up"; sleep 2; done';

export default async function tails(): Promise<object> {
  const cluster = await Cluster.start({ apis: 1, workers: 1, swift: false, relays: false });
  try {
    const { stack } = cluster;
    await stack.database.db.project.updateMany({ data: { concurrency: COMMANDS } });
    const call = await stack.clientV2();
    const ids: string[] = [];
    while (ids.length < COMMANDS) {
      const { vm } = await cluster.addAgentVm();
      const { command_id: id } = await call('start_vm_command', { vm_id: vm.id, command: PRINT });
      ids.push(id as string);
    }
    const sizes = async () => {
      const streams = await stack.database.db.jobLogStream.findMany({
        where: { jobId: { in: ids }, stream: 'stdout' },
      });
      return new Map(streams.map(({ jobId, size }) => [jobId, size]));
    };
    await eventually(async () => (await sizes()).size === COMMANDS, { withinMs: 300_000 });

    const before = await sizes();
    const worker = cluster.members.get('worker-1')!.child!.pid!;
    const [begun, spent] = [performance.now(), processorMs(worker)];
    const read = await Promise.all(ids.slice(-READERS).map((id) => lagsOf(call, id)));
    const share = (processorMs(worker) - spent) / (performance.now() - begun);
    const after = await sizes();
    const still = ids.filter((id) => !(after.get(id)! > before.get(id)!)).length;
    const lags = read.flat();
    const [p50, p95] = [median(lags), percentile(lags, 0.95)].map(Math.round);
    console.log(
      `tails: of ${COMMANDS} commands ${still} brought nothing in ${MEASURE_MS / 1000} s; a line is ${p50} ms old when it is ` +
        `read, p95 ${p95} ms; the worker took ${round(share)} of a processor`,
    );
    return { tails_200_lag_p95_ms: p95, tails_200_still: still };
  } finally {
    await cluster.stop();
  }
}

/** Of the lines of one command that are printed from now on. Its clock is ours. */
async function lagsOf(call: Call, id: string): Promise<number[]> {
  const lags: number[] = [];
  const begun = performance.now();
  for (let offset: number | undefined; performance.now() - begun < MEASURE_MS;) {
    const log = await call('read_vm_command_logs', { command_id: id, stdout_offset: offset ?? 0 });
    const now = uptimeMs(readFileSync('/proc/uptime', 'utf8'));
    // What was there before anybody asked says nothing.
    if (offset !== undefined)
      for (const line of (log.stdout as string).split('\n').filter(Boolean)) lags.push(now - uptimeMs(line));
    offset = log.next_stdout_offset as number;
    await pause(READ_AGAIN_MS);
  }
  return lags;
}
