import { readUsage } from './guest-usage.js';

const REAL = `cpu  100 0 100 800 0 0 0 0 0 0
cpu  150 0 150 900 0 0 0 0 0 0
0.08 0.03 0.01 1/70 812
3600.52 7000.10
MemTotal:         986412 kB
MemAvailable:     900000 kB
SwapTotal:             0 kB
SwapFree:              0 kB
    lo:     500       5    0    0    0     0          0         0      500       5    0    0    0     0       0          0
  eth0:    1000      10    0    0    0     0          0         0     2000      20    0    0    0     0       0          0
  eth1:     100       1    0    0    0     0          0         0      200       2    0    0    0     0       0          0
/dev/vda          10255636    524288   9731348       6% /
`;

it('reads what a guest prints', () => {
  expect(readUsage(REAL)).toEqual({
    cpu_percent: 50,
    load_1_minute: 0.08,
    uptime_seconds: 3600.52,
    memory_bytes: 986412 * 1024,
    memory_available_bytes: 900000 * 1024,
    swap_bytes: 0,
    swap_free_bytes: 0,
    disk_bytes: 10255636 * 1024,
    disk_used_bytes: 524288 * 1024,
    network_received_bytes: 1100,
    network_sent_bytes: 2200,
  });
});

it.each(['', '\n\n', 'cpu \ncpu x y z', 'MemTotal: lots kB\neth0: 1', '\u0000\ufffd'.repeat(1000)])(
  'tells only numbers, whatever a guest prints: %j',
  (text) => {
    for (const value of Object.values(readUsage(text))) expect(Number.isFinite(value)).toBe(true);
  },
);
