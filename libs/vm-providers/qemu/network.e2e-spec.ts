import { spawnSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { chmodSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readEpoch } from '@longhaul/guest';
import { currentEpoch } from '@longhaul/toolsets/vms/epoch';
import { Observer } from '../../../apps/worker/observer.js';
import { makeUser, makeVm, testDatabase, type TestDatabase } from '../../../test/support/database.js';
import { eventually } from '../../../test/support/eventually.js';
import { datagrams, inside, ip, makeNamespace, reaches } from '../../../test/support/network-namespace.js';
import { IMAGE_DISK_GB, macAddress } from './machine.js';
import { parseAddressRange, tapName } from './network.js';
import { ensureSystemUser } from './programs.js';
import { QemuProvider } from './qemu-provider.js';
import { TEMPLATE_SHAPE } from './template.js';

/** The host of the VMs: a namespace with a bridge, so that the real host's network is left alone. */
const host = `lh-b-${process.pid}`;
const HOST = '10.77.0.1';
const FOREIGN = { mac: '52:54:00:ff:ff:fe', address: '10.77.0.99' };
/** Into the namespace, with a device for taps that QEMU's user may open, as on a host whose udev is systemd's. */
const OPEN_TUN = 'mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200 && exec "$@"';
const within = ['ip', 'netns', 'exec', host, 'sh', '-c', OPEN_TUN, 'sh'];
const spec = { ...TEMPLATE_SHAPE, hostname: 'web-1', diskGb: IMAGE_DISK_GB, image: 'default' };
const [one, two] = [randomUUID(), randomUUID()];

const canTest = makeNamespace(host);
const title = canTest
  ? 'VMs on a bridge'
  : 'VMs on a bridge: not tested here, as that needs root, network namespaces and nftables';

(canTest ? describe : describe.skip)(title, () => {
  const home = mkdtempSync(join(tmpdir(), 'lh-'));
  const provider = new QemuProvider({
    home,
    imagesDirectory: process.env.TEST_IMAGES || join(tmpdir(), 'longhaul-images'),
    accelerator: 'auto',
    runAsUser: 'longhaul',
    bridge: {
      bridge: 'br0',
      range: parseAddressRange('10.77.0.10-10.77.0.19/24'),
      gateway: HOST,
      within,
    },
  });
  let test: TestDatabase;

  const sh = (id: string, script: string) =>
    provider
      .guest(id)
      .session((guest) => guest.run({ path: '/bin/sh', args: ['-c', script] }, 30_000))
      .then(({ exitCode, stdout, stderr }) => {
        if (exitCode !== 0) throw new Error(stderr.toString());
        return stdout.toString().trim();
      });
  const addressOf = async (id: string) => (await provider.addresses(id))[0]!.address;
  const onHost = () => inside(host, 'nft', 'list', 'ruleset') + inside(host, 'ip', 'link');

  beforeAll(async () => {
    ensureSystemUser('longhaul');
    chmodSync(home, 0o755);
    ip(host, 'link add br0 type bridge');
    ip(host, `address add ${HOST}/24 dev br0`);
    ip(host, 'link set br0 up');
    test = await testDatabase();
    for (const id of [one, two]) await provider.create({ ...spec, id });
  }, 600_000);
  afterAll(async () => {
    for (const id of [one, two]) await provider.delete(id);
    spawnSync('ip', ['netns', 'delete', host]);
    await test?.drop();
    rmSync(home, { recursive: true });
  }, 60_000);

  it('have the address that the provider tells, and are reached at it, from the host and from each other', async () => {
    expect(await provider.addresses(one)).toEqual([{ family: 4, address: '10.77.0.10', kind: 'direct' }]);
    expect(await provider.addresses(two)).toEqual([{ family: 4, address: '10.77.0.11', kind: 'direct' }]);
    for (const id of [one, two]) {
      expect(await sh(id, 'ip -o -4 address show eth0')).toContain(`inet ${await addressOf(id)}/24 `);
      expect(await sh(id, 'ip route show default')).toContain(`via ${HOST} `);
      expect(reaches(host, await addressOf(id))).toBe(true);
    }
    expect(await sh(one, `busybox ping -c 1 -W 10 ${await addressOf(two)}`)).toContain('1 packets received');
    const macs = await Promise.all([one, two].map((id) => sh(id, 'cat /sys/class/net/eth0/address')));
    expect(macs).toEqual([macAddress(one), macAddress(two)]);
    expect(macs[0]).not.toBe(macs[1]);
  }, 60_000);

  it("cannot send from another MAC or address, whatever the guest's root does", async () => {
    const own = { mac: macAddress(one), address: await addressOf(one) };
    const bridge = inside(host, 'cat', '/sys/class/net/br0/address').trim();
    const sent = async () => Number(await sh(one, 'cat /sys/class/net/eth0/statistics/tx_packets'));
    /** Without asking for the host's MAC before, as the answer would not come. */
    const send = async ({ mac, address }: typeof own) => {
      const before = await sent();
      await sh(
        one,
        `set -e
        ip link set eth0 address ${mac}
        ip address replace ${address}/24 dev eth0
        ip neighbour replace ${HOST} lladdr ${bridge} dev eth0
        perl -MSocket=:all -e '
          socket(S, AF_INET, SOCK_DGRAM, 17) && bind(S, pack_sockaddr_in(0, inet_aton("${address}"))) or die $!;
          send(S, "x", 0, pack_sockaddr_in(9, inet_aton("${HOST}"))) or die $!'`,
      );
      expect(await sent()).toBeGreaterThan(before);
    };
    const before = datagrams(host);
    await send({ ...own, address: FOREIGN.address });
    await send({ ...own, mac: FOREIGN.mac });
    // What comes last has passed after all else.
    await send(own);
    await eventually(() => datagrams(host) > before);
    expect(datagrams(host)).toBe(before + 1);
  }, 60_000);

  it('get their address back, and a new epoch, after a reboot of their own', async () => {
    const { db } = test;
    const { caller } = await makeUser(db);
    await makeVm(db, caller, { id: one, host: 'here' });
    const epoch = await provider.guest(one).session((session) => currentEpoch(db, one, provider, session));
    await sh(one, 'setsid sh -c "sleep 1; reboot" >/dev/null 2>&1 &');

    const observer = new Observer({ WORKER_HOSTS: ['here'] }, db, { of: () => provider });
    await eventually(
      async () => {
        // As if time had passed since the last look.
        await db.$executeRaw`UPDATE vms SET observed = observed - 'agent_asked_at'`;
        await observer.round();
        const vm = await db.vm.findUniqueOrThrow({ where: { id: one } });
        // A guest that was too busy to be greeted is greeted anew, in the name of another epoch.
        const inGuest = () => provider.guest(one).session(readEpoch);
        return vm.epoch !== epoch && (await inGuest().catch(() => undefined)) === vm.epoch;
      },
      { withinMs: 240_000, everyMs: 200 },
    );
    expect(await sh(one, 'ip -o -4 address show eth0')).toContain(`inet ${await addressOf(one)}/24 `);
    expect(reaches(host, await addressOf(one))).toBe(true);
  }, 300_000);

  it('leave no device and no rule when they are stopped, and no address when they are deleted', async () => {
    const addresses = () => readdirSync(join(home, 'addresses')).sort();
    expect(onHost()).toContain(tapName(two));
    await provider.stop(two);
    expect(onHost()).not.toContain(tapName(two));
    expect(addresses()).toEqual(['10.77.0.10', '10.77.0.11']);
    await provider.delete(two);
    expect(addresses()).toEqual(['10.77.0.10']);
    await provider.delete(one);
    expect(addresses()).toEqual([]);
    for (const id of [one, two]) {
      expect(onHost()).not.toContain(tapName(id));
      expect(onHost()).not.toContain(macAddress(id));
    }
  }, 60_000);
});
