// What a guest says of itself: a script, and the reading of what it prints.

export const USAGE = `
head -n 1 /proc/stat
sleep 0.5
head -n 1 /proc/stat
cat /proc/loadavg /proc/uptime
grep -E '^(MemTotal|MemAvailable|SwapTotal|SwapFree):' /proc/meminfo
grep ':' /proc/net/dev
df -Pk / | tail -n 1`;

/** By names that say the unit. Lines that are not what they should be are left out. */
export function readUsage(text: string): Record<string, number> {
  const lines = text.split('\n').map((line) => line.trim());
  const [before, after] = lines.filter((line) => line.startsWith('cpu ')).map(cpuTimes);
  const memory = (name: string) => {
    const line = lines.find((each) => each.startsWith(`${name}:`));
    return line === undefined ? NaN : Number(line.split(/\s+/)[1]) * 1024;
  };
  const [load = '', uptime = ''] = lines.filter((line) => /^\d+\.\d+ /.test(line));
  const networks = lines
    .filter((line) => /^[\w.@-]+: *\d/.test(line) && !line.startsWith('lo:') && !line.includes(' kB'))
    .map((line) =>
      line
        .slice(line.indexOf(':') + 1)
        .trim()
        .split(/\s+/)
        .map(Number),
    );
  const sum = (column: number) => networks.reduce((total, network) => total + network[column]!, 0);
  const disk = lines.find((line) => /^\S+ +\d+ +\d+ +\d+ +\d+% +\/$/.test(line))?.split(/\s+/) ?? [];
  const usage: Record<string, number> = {
    cpu_percent:
      before && after
        ? Math.round((100 * (after.busy - before.busy)) / Math.max(after.all - before.all, 1))
        : NaN,
    load_1_minute: Number(load.split(' ')[0] || NaN),
    uptime_seconds: Number(uptime.split(' ')[0] || NaN),
    memory_bytes: memory('MemTotal'),
    memory_available_bytes: memory('MemAvailable'),
    swap_bytes: memory('SwapTotal'),
    swap_free_bytes: memory('SwapFree'),
    disk_bytes: Number(disk[1]) * 1024,
    disk_used_bytes: Number(disk[2]) * 1024,
    network_received_bytes: sum(0),
    network_sent_bytes: sum(8),
  };
  return Object.fromEntries(Object.entries(usage).filter(([, value]) => Number.isFinite(value)));
}

/** Of a line `cpu user nice system idle iowait …`, in ticks. */
function cpuTimes(line: string): { busy: number; all: number } {
  const ticks = line.split(/\s+/).slice(1, 9).map(Number);
  const all = ticks.reduce((total, each) => total + each, 0);
  return { busy: all - (ticks[3]! + ticks[4]!), all };
}
