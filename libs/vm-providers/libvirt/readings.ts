import { isIP } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { VmAddress, VmMetrics, VmObservation } from '../provider.js';
import { isVmId } from '../qemu/vm-files.js';
import { NoDomain, type Virsh } from './virsh.js';

const MOMENT_MS = 500;
const MAX_ADDRESSES = 32;
/** Shut off and crashed, as libvirt counts. What was used before is still told then. */
const OFF = [5, 6];

export async function readMetrics(virsh: Virsh, id: string): Promise<VmMetrics> {
  const args = [
    'domstats',
    '--raw',
    '--state',
    '--cpu-total',
    '--vcpu',
    '--balloon',
    '--block',
    '--interface',
    id,
  ];
  const [from, before] = [performance.now(), parseStats(await virsh.run(args))];
  if (!before.runs || before.cpuNs === undefined) {
    const { diskBytes, hostDiskBytes } = before.metrics;
    return { diskBytes, hostDiskBytes };
  }
  await sleep(MOMENT_MS);
  const after = parseStats(await virsh.run(args));
  const spentMs = ((after.cpuNs ?? 0) - before.cpuNs) / 1e6;
  const share = spentMs / ((performance.now() - from) * (after.cpus ?? 1));
  return { ...after.metrics, cpuPercent: Math.round(Math.min(Math.max(share, 0), 1) * 1000) / 10 };
}

/** From the lines `name=value` of domstats. */
export function parseStats(text: string): {
  runs: boolean;
  cpuNs?: number;
  cpus?: number;
  metrics: VmMetrics;
} {
  const values = new Map(
    [...text.matchAll(/^\s*([\w.]+)=(\d+)$/gm)].map(([, name, value]) => [name, Number(value)]),
  );
  const get = (name: string, unit = 1) => {
    const value = values.get(name);
    return value === undefined ? undefined : value * unit;
  };
  return {
    runs: !OFF.includes(get('state.state') ?? 0),
    cpuNs: get('cpu.time'),
    cpus: get('vcpu.current'),
    metrics: {
      memoryBytes: get('balloon.current', 1024),
      hostMemoryBytes: get('balloon.rss', 1024),
      diskBytes: get('block.0.capacity'),
      hostDiskBytes: get('block.0.allocation'),
      diskReadBytes: get('block.0.rd.bytes'),
      diskWrittenBytes: get('block.0.wr.bytes'),
      networkReceivedBytes: get('net.0.rx.bytes'),
      networkSentBytes: get('net.0.tx.bytes'),
    },
  };
}

/** From the table of domifaddr, which a guest may have told: what no address is, or leads nowhere, is left out. */
export function parseAddresses(table: string): VmAddress[] {
  return [...table.matchAll(/\s(?:ipv4|ipv6)\s+([0-9a-f.:]+)\/\d+\s*$/gim)]
    .map(([, address]) => address!)
    .filter((address) => isIP(address) && !/^(127\.|169\.254\.|::1$|fe80:)/i.test(address))
    .slice(0, MAX_ADDRESSES)
    .map((address) => ({ family: isIP(address) as 4 | 6, address, kind: 'direct' }));
}

/** What libvirt says of a domain; of one that is off, why. */
export async function readState(virsh: Virsh, id: string): Promise<VmObservation> {
  if (!isVmId(id)) return { power: 'absent' };
  try {
    const info = await virsh.run(['dominfo', id]);
    const state = /^State:\s+(.+?)\s*$/m.exec(info)?.[1] ?? '';
    if (state === 'paused') return { power: 'paused' };
    if (state !== 'shut off' && state !== 'crashed') return { power: 'running' };
    if (/^Managed save:\s+yes/m.test(info)) return { power: 'suspended' };
    const reason = await virsh.run(['domstate', id, '--reason']);
    return { power: /crashed/.test(reason) ? 'crashed' : 'stopped' };
  } catch (error) {
    if (error instanceof NoDomain) return { power: 'absent' };
    throw error;
  }
}
