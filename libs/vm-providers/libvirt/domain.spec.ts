import { domainXml, parseLibvirtNetwork, type DomainParts } from './domain.js';
import { parseAddresses, parseStats } from './readings.js';

const parts: DomainParts = {
  spec: {
    id: '11111111-2222-4333-8444-555555555555',
    hostname: 'web',
    cpus: 2,
    memoryMb: 700,
    diskGb: 10,
    image: 'x',
  },
  accelerator: 'tcg',
  disk: `/srv/a'b<c>&"d/disk.qcow2`,
  kernel: '/k',
  initrd: '/i',
  network: { kind: 'user' },
};

it('escapes what it is given', () => {
  const xml = domainXml(parts);
  expect(xml).toContain(`<source file='/srv/a&apos;b&lt;c&gt;&amp;&quot;d/disk.qcow2'/>`);
  expect(xml).toContain(`<qemu:arg value='user,id=net0,restrict=on'/>`);
  expect(xml).not.toContain('<interface');
});

it('has a filtered card in a network of libvirt', () => {
  const xml = domainXml({ ...parts, network: parseLibvirtNetwork('network:default') });
  expect(xml).toMatch(/<interface type='network'><source network='default'\/>.*clean-traffic/s);
  expect(xml).not.toContain('qemu:arg');
});

it.each(['', 'user:x', 'network:', `bridge:a'b`, 'bridge:a b'])('refuses the network %j', (text) => {
  expect(() => parseLibvirtNetwork(text)).toThrow(/is not a network/);
});

it('reads addresses, without those that lead nowhere', () => {
  const table = ` lo         00:00:00:00:00:00    ipv4         127.0.0.1/8
 -          -                    ipv6         ::1/128
 eth0       52:54:00:11:22:33    ipv4         192.168.122.5/24
 -          -                    ipv6         fe80::5054:ff:fe11:2233/64
 -          -                    ipv6         2001:db8::5/64
 eth0       52:54:00:11:22:33    ipv4         999.1.1.1/24
`;
  expect(parseAddresses(table)).toEqual([
    { family: 4, address: '192.168.122.5', kind: 'direct' },
    { family: 6, address: '2001:db8::5', kind: 'direct' },
  ]);
});

it('reads counters, be some missing', () => {
  const text = `Domain: 'x'\n  state.state=1\n  cpu.time=5000000000\n  vcpu.current=2\n  balloon.current=716800\n  balloon.rss=1024
  block.count=1\n  block.0.rd.bytes=7\n  block.0.wr.bytes=8\n  block.0.allocation=9\n  block.0.capacity=10\n`;
  expect(parseStats(text)).toEqual({
    runs: true,
    cpuNs: 5e9,
    cpus: 2,
    metrics: {
      memoryBytes: 716800 * 1024,
      hostMemoryBytes: 1024 * 1024,
      diskBytes: 10,
      hostDiskBytes: 9,
      diskReadBytes: 7,
      diskWrittenBytes: 8,
    },
  });
  expect(parseStats('state.state=5\n')).toEqual({ runs: false, metrics: {} });
});
