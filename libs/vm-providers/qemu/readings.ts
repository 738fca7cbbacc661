import { readFile, stat } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { VmAddress, VmMetrics } from '../provider.js';
import { GUEST_ADDRESS } from './machine.js';
import { NoProcess, withQmp } from './qmp.js';
import type { VmFiles, VmRecord } from './vm-files.js';

/** Over which CPU time is measured: clock ticks of 10 ms are exact to 2 % then. */
const MOMENT_MS = 500;
const TICK_MS = 10;

/** What QEMU and the host's kernel know of a VM that may or may not run. */
export async function readMetrics(files: VmFiles, { spec }: VmRecord): Promise<VmMetrics> {
  const { blocks } = await stat(files.disk);
  const sizes = { diskBytes: spec.diskGb * 2 ** 30, hostDiskBytes: blocks * 512 };
  try {
    const { threads, root, memory } = await withQmp(files, async (qmp) => ({
      threads: await qmp.execute<{ 'thread-id': number }[]>('query-cpus-fast'),
      root: (await qmp.execute<BlockStats[]>('query-blockstats')).find(({ device }) => device === 'root'),
      memory: await qmp.execute<{ 'base-memory': number }>('query-memory-size-summary'),
    }));
    const ids = threads.map((thread) => thread['thread-id']);
    return {
      ...sizes,
      cpuPercent: await measureCpu(ids),
      memoryBytes: memory['base-memory'],
      hostMemoryBytes: await residentBytes(ids[0]),
      diskReadBytes: root?.stats.rd_bytes,
      diskWrittenBytes: root?.stats.wr_bytes,
    };
  } catch (error) {
    if (error instanceof NoProcess) return sizes;
    throw error;
  }
}

interface BlockStats {
  device: string;
  stats: { rd_bytes: number; wr_bytes: number };
}

/** Per cent of what these threads, each of a virtual CPU, could use at most; undefined when one of them ends meanwhile. */
async function measureCpu(threads: number[]): Promise<number | undefined> {
  const usedMs = async () => {
    const each = await Promise.all(threads.map(threadMs));
    return each.reduce((sum, ms) => sum + ms, 0);
  };
  const [from, before] = [performance.now(), await usedMs()];
  await sleep(MOMENT_MS);
  const share = ((await usedMs()) - before) / ((performance.now() - from) * threads.length);
  return Number.isFinite(share) ? Math.round(Math.min(Math.max(share, 0), 1) * 1000) / 10 : undefined;
}

/** CPU time of a thread so far; NaN for one that is gone. The fields are counted from behind the name, which may hold anything. */
async function threadMs(thread: number): Promise<number> {
  const text = await readFile(`/proc/${thread}/stat`, 'utf8').catch(() => '');
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const [user, system] = [Number(fields[11]), Number(fields[12])];
  return (user + system) * TICK_MS;
}

async function residentBytes(thread: number | undefined): Promise<number | undefined> {
  const text = await readFile(`/proc/${thread}/status`, 'utf8').catch(() => '');
  const kibibytes = /^VmRSS:\s+(\d+) kB/m.exec(text)?.[1];
  return kibibytes === undefined ? undefined : Number(kibibytes) * 1024;
}

/** The guest's own address, which is the same for every VM, and the ports of the host that lead to it. */
export async function readAddresses(files: VmFiles): Promise<VmAddress[]> {
  try {
    const text = await withQmp(files, (qmp) =>
      qmp.execute<string>('human-monitor-command', { 'command-line': 'info usernet' }),
    );
    return [{ family: 4, address: GUEST_ADDRESS, kind: 'private' }, ...parseForwards(text)];
  } catch (error) {
    if (error instanceof NoProcess) return [];
    throw error;
  }
}

/** From lines such as `TCP[HOST_FORWARD]  12  127.0.0.1 8080  10.0.2.15 80  0  0`, one address for each of the host's. */
export function parseForwards(text: string): VmAddress[] {
  const line = /^\s*(TCP|UDP)\[HOST_FORWARD\]\s+\S+\s+(\S+)\s+(\d+)\s+\S+\s+(\d+)\s/gm;
  const addresses = new Map<string, VmAddress & { kind: 'forward' }>();
  for (const [, protocol, host, hostPort, guestPort] of text.matchAll(line)) {
    const address = host === '*' ? '0.0.0.0' : host!;
    const entry = addresses.get(address) ?? { family: 4, address, kind: 'forward', ports: [] };
    const port = { guest: Number(guestPort), host: Number(hostPort) };
    entry.ports!.push({ protocol: protocol === 'TCP' ? 'tcp' : 'udp', ...port });
    addresses.set(address, entry);
  }
  return [...addresses.values()];
}
