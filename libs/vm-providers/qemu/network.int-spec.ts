import { execFileSync, spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from '../../../test/support/eventually.js';
import { datagrams, inside, ip, makeNamespace, reaches } from '../../../test/support/network-namespace.js';
import { macAddress } from './machine.js';
import { BridgeNetwork, parseAddressRange, parseVmNetwork, tapName } from './network.js';

/** Three network namespaces: a host with a bridge, a guest behind the VM's device, and another machine on the bridge. */
const name = (what: string) => `lh-${what}-${process.pid}`;
const [host, guest, other] = ['h', 'g', 'o'].map(name) as [string, string, string];
const OTHER = '10.77.0.1';
const id = randomUUID();
const home = mkdtempSync(join(tmpdir(), 'lh-'));
const within = ['ip', 'netns', 'exec', host];

const network = (range?: string) =>
  new BridgeNetwork({ bridge: 'br0', home, within, range: range ? parseAddressRange(range) : undefined });

const canTest = makeNamespace(host);
const title = canTest
  ? 'a bridge'
  : 'a bridge: not tested here, as that needs root, network namespaces and nftables';

(canTest ? describe : describe.skip)(title, () => {
  beforeAll(() => {
    for (const space of [guest, other]) execFileSync('ip', ['netns', 'add', space]);
    ip(host, 'link add br0 type bridge');
    ip(host, 'link set br0 up');
    // In place of a VM: what comes out of the pair's far end comes out of the VM's device.
    ip(host, `link add ${tapName(id)} type veth peer name eth0 netns ${guest}`);
    ip(host, `link add other type veth peer name eth0 netns ${other}`);
    ip(host, 'link set other master br0');
    ip(host, 'link set other up');
    ip(other, `address add ${OTHER}/24 dev eth0`);
    ip(other, 'address add 10.88.0.1/24 dev eth0');
    ip(other, 'address add fd00::1/64 dev eth0 nodad');
    ip(other, 'link set eth0 up');
  });
  afterAll(() => {
    for (const space of [guest, other, host]) spawnSync('ip', ['netns', 'delete', space]);
    rmSync(home, { recursive: true });
  });

  /** The guest as its root sets it up, from scratch. */
  const become = (mac: string, ...addresses: string[]) => {
    ip(guest, 'link set eth0 down');
    ip(guest, 'address flush dev eth0');
    ip(guest, `link set eth0 address ${mac}`);
    ip(guest, 'link set eth0 up');
    for (const address of addresses)
      ip(guest, `address add ${address} dev eth0${address.includes(':') ? ' nodad' : ''}`);
    spawnSync('ip', ['-n', other, 'neighbour', 'flush', 'all']);
  };
  it('lets a right guest out, and nobody with another MAC', async () => {
    const { mac, address } = await network().prepare(id);
    expect(address).toBeUndefined();
    become(mac, '10.77.0.5/24', 'fd00::5/64');
    expect(reaches(guest, OTHER)).toBe(true);
    expect(reaches(guest, 'fd00::1')).toBe(true);
    become('52:54:00:ff:ff:fe', '10.77.0.5/24');
    expect(reaches(guest, OTHER)).toBe(false);
  }, 60_000);

  it('holds a guest to its address, also after a repeated call', async () => {
    const { mac, address } = await network('10.77.0.10-10.77.0.12/24').prepare(id);
    expect(address).toBe('10.77.0.10');
    expect(await network('10.77.0.10-10.77.0.12/24').prepare(id)).toMatchObject({ address });
    become(mac, `${address}/24`, 'fd00::5/64');
    expect(reaches(guest, OTHER)).toBe(true);
    expect(reaches(guest, 'fd00::1')).toBe(false);
    become(mac, '10.77.0.11/24');
    expect(reaches(guest, OTHER)).toBe(false);
    // An address of its own as source, and a lie in the ARP answer.
    become(mac, `${address}/24`, '10.77.0.11/32');
    inside(
      other,
      ...['perl', '-MSocket=:all', '-e'],
      `socket(S, AF_INET, SOCK_DGRAM, 17); send(S, "x", 0, pack_sockaddr_in(9, inet_aton("10.77.0.11")))`,
    );
    const neighbour = () => inside(other, 'ip', 'neighbour', 'show', '10.77.0.11');
    await eventually(() => /FAILED/.test(neighbour()));
    expect(neighbour()).not.toContain('lladdr');
  }, 60_000);

  it('lets no guest give out addresses or routes', async () => {
    const { mac } = await network().prepare(id);
    become(mac, '10.77.0.5/24', 'fe80::5/64');
    const received = (counter: string) =>
      Number(new RegExp(`${counter}\\s+(\\d+)`).exec(inside(other, 'cat', '/proc/net/snmp6'))?.[1]);
    const [advertised, echoed] = [received('Icmp6InRouterAdvertisements'), received('Icmp6InEchos')];
    const send = (type: number) =>
      inside(
        guest,
        'perl',
        ...['-MSocket=:all', '-e'],
        `socket(S, AF_INET6, SOCK_RAW, 58) or die; setsockopt(S, 41, 18, pack("i", 255));
        my $to = pack_sockaddr_in6(0, inet_pton(AF_INET6, "ff02::1"), ${indexOf(guest)});
        send(S, pack("CCnx12", ${type}, 0, 0), 0, $to) or die $!`,
      );
    send(134);
    send(128);
    expect(received('Icmp6InEchos')).toBe(echoed + 1);
    expect(received('Icmp6InRouterAdvertisements')).toBe(advertised);

    const from = (port: number) =>
      inside(
        guest,
        'perl',
        '-MSocket=:all',
        '-e',
        `socket(S, AF_INET, SOCK_DGRAM, 17) or die; bind(S, pack_sockaddr_in(${port}, INADDR_ANY)) or die;
        send(S, "x", 0, pack_sockaddr_in(9, inet_aton("${OTHER}"))) or die $!`,
      );
    const before = datagrams(other);
    from(67);
    from(68);
    expect(datagrams(other)).toBe(before + 1);
  }, 60_000);

  it('makes a device, gives each VM an address of its own, and takes all of it away', async () => {
    const [a, b, c] = [randomUUID(), randomUUID(), randomUUID()];
    const small = network('10.77.0.20-10.77.0.21/24');
    const made = await Promise.all([small.prepare(a), small.prepare(b)]);
    expect(made.map(({ address }) => address).sort()).toEqual(['10.77.0.20', '10.77.0.21']);
    expect(inside(host, 'ip', '-d', 'link', 'show', 'dev', tapName(a))).toMatch(
      /tun type tap.*bridge_slave/s,
    );
    await expect(small.prepare(c)).rejects.toMatchObject({ code: 'unavailable' });
    await small.remove(b);
    await small.remove(b);
    expect((await small.prepare(c)).address).toBe(made[1]!.address);
    for (const each of [a, c]) await small.remove(each);
    const left = inside(host, 'nft', 'list', 'ruleset') + inside(host, 'ip', 'link');
    for (const each of [a, b, c]) expect(left).not.toContain(tapName(each));
    expect(left).toContain(macAddress(id));
  }, 60_000);
});

const indexOf = (space: string) => Number(inside(space, 'cat', '/sys/class/net/eth0/ifindex'));

it('reads settings, and refuses what they are not', () => {
  expect(parseVmNetwork('user')).toBeUndefined();
  expect(parseVmNetwork('bridge:br0')).toBe('br0');
  for (const text of ['bridge:', 'bridge:a b', 'bridge:a-name-that-is-too-long', 'tap:x'])
    expect(() => parseVmNetwork(text)).toThrow(/is not a network/);
  expect(parseAddressRange('10.0.0.250-10.0.1.5/16')).toEqual({
    first: '10.0.0.250',
    last: '10.0.1.5',
    prefix: 16,
  });
  for (const text of [
    '10.0.0.5',
    '10.0.0.9-10.0.0.5/24',
    '10.0.0.1-10.0.1.1/24',
    '10.0.0.1-10.1.0.1/8',
    '10.0.0.1-10.0.0.300/24',
  ])
    expect(() => parseAddressRange(text)).toThrow(/is not a range/);
});
