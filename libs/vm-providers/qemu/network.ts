import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, readdir, readlink, rm, symlink } from 'node:fs/promises';
import { isIPv4 } from 'node:net';
import { join } from 'node:path';
import { AppError } from '@longhaul/errors';
import type { GuestSession } from '@longhaul/guest';
import type { VmAddress } from '../provider.js';
import { macAddress } from './machine.js';
import { run } from './programs.js';

/** IPv4 addresses `first` to `last` of a network with `prefix` bits, for the VMs of one host. */
export interface AddressRange {
  first: string;
  last: string;
  prefix: number;
}

export interface BridgeOptions {
  /** A bridge of this host that the operator has made. */
  bridge: string;
  /** Without it, guests choose their addresses (by DHCP, say) and only their MAC is held to. */
  range?: AddressRange;
  /** Router of the range's network, that guests are told of. */
  gateway?: string;
  /** LONGHAUL_HOME: which VM has which address. */
  home: string;
  /** The user that QEMU runs as, who may open the VM's device. */
  user?: string;
  /** Words before each command, such as those that enter a network namespace. */
  within?: string[];
}

const MAX_RANGE = 4096;

/** VM_NETWORK: `user` gives undefined, `bridge:<name>` the name. Throws for anything else. */
export function parseVmNetwork(text: string): string | undefined {
  if (text === 'user') return undefined;
  const name = /^bridge:([a-zA-Z0-9][\w.-]{0,14})$/.exec(text)?.[1];
  if (!name) throw new Error(`${text} is not a network: user or bridge:<name>`);
  return name;
}

/** VM_ADDRESS_RANGE, such as `10.20.0.10-10.20.0.99/24`. Throws for what is no range of at most 4096 addresses. */
export function parseAddressRange(text: string): AddressRange {
  const [, first = '', last = '', bits] = /^([\d.]+)-([\d.]+)\/(\d{1,2})$/.exec(text) ?? [];
  const prefix = Number(bits);
  const size = isIPv4(first) && isIPv4(last) ? toNumber(last) - toNumber(first) + 1 : 0;
  const networkOf = (address: string) => Math.floor(toNumber(address) / 2 ** (32 - prefix));
  const fits = size >= 1 && size <= MAX_RANGE && prefix >= 8 && prefix <= 30;
  if (!fits || networkOf(first) !== networkOf(last))
    throw new Error(`${text} is not a range of addresses in one network: <first>-<last>/<prefix>`);
  return { first, last, prefix };
}

/** Name of the VM's network device on the host; Linux allows 15 characters. */
export const tapName = (id: string) => `lh${createHash('sha256').update(id).digest('hex').slice(0, 12)}`;

/**
 * VMs on a bridge, each by a tap device of its own. Rules of nftables hold at the device, where the guest's root cannot
 * undo them: frames come from the VM's own MAC only and, with a range, from its own IPv4 address; no guest gives out
 * addresses or routes to others.
 */
export class BridgeNetwork {
  constructor(private readonly options: BridgeOptions) {}

  /** Makes the VM's device and rules, or makes them right; to be repeated before each start, as a host's boot removes them. */
  async prepare(id: string): Promise<{ tap: string; mac: string; address?: string }> {
    const { bridge, range, user } = this.options;
    const [tap, mac] = [tapName(id), macAddress(id)];
    const address = range && (await this.addressOf(id, range));
    // Before the device: no frame passes without them.
    await this.nft(rules(tap, mac, address));
    const exists = await this.ip('link', 'show', 'dev', tap).then(
      () => true,
      () => false,
    );
    if (!exists) await this.ip('tuntap', 'add', 'dev', tap, 'mode', 'tap', ...(user ? ['user', user] : []));
    await this.ip('link', 'set', 'dev', tap, 'master', bridge);
    // A guest takes no part in how bridges find their way.
    await this.ip('link', 'set', 'dev', tap, 'type', 'bridge_slave', 'guard', 'on', 'root_block', 'on');
    await this.ip('link', 'set', 'dev', tap, 'up');
    return { tap, mac, address };
  }

  /** Tells a guest that has booted its address of the range. Repeatable; without a range, nothing happens. */
  async configure(id: string, guest: GuestSession): Promise<void> {
    const { range, gateway = '' } = this.options;
    if (!range) return;
    const address = `${await this.addressOf(id, range)}/${range.prefix}`;
    const args = ['-c', CONFIGURE, 'sh', macAddress(id), address, gateway];
    const done = await guest.run({ path: '/bin/sh', args }, 10_000);
    if (done.exitCode === 0) return;
    throw new Error(`The guest did not take its address: ${done.stderr.toString('utf8').slice(-1000)}`);
  }

  /** Where the VM is reached: nowhere that we know of without a range. */
  async addresses(id: string): Promise<VmAddress[]> {
    const owned = [...(await this.taken())].filter(([, owner]) => owner === id);
    return owned.map(([address]) => ({ family: 4, address, kind: 'direct' }));
  }

  /** Removes the VM's device and rules, where there are any; its address stays its own. */
  async detach(id: string): Promise<void> {
    const tap = tapName(id);
    await this.ip('link', 'delete', 'dev', tap).catch(() => undefined);
    await this.nft(`${EMPTY}\n${forget(tap)}`);
  }

  /** Removes all that `prepare` has made; also when it did not. */
  async remove(id: string): Promise<void> {
    await this.detach(id);
    for (const [address, owner] of await this.taken())
      if (owner === id) await rm(join(this.directory, address), { force: true });
  }

  /** The VM's address, the same for as long as it exists. A symbolic link, made in one step, says whose each one is. */
  private async addressOf(id: string, range: AddressRange): Promise<string> {
    await mkdir(this.directory, { recursive: true });
    const taken = await this.taken();
    const [first, last] = [toNumber(range.first), toNumber(range.last)];
    for (const [address, owner] of taken)
      if (owner === id && toNumber(address) >= first && toNumber(address) <= last) return address;
    for (let number = first; number <= last; number++) {
      const address = toText(number);
      if (taken.has(address)) continue;
      try {
        await symlink(id, join(this.directory, address));
        return address;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      }
    }
    throw new AppError('unavailable', `All addresses from ${range.first} to ${range.last} are taken.`);
  }

  private async taken(): Promise<Map<string, string>> {
    const names = (await readdir(this.directory).catch(() => [])).filter((name) => isIPv4(name));
    const owner = (name: string) => readlink(join(this.directory, name)).catch(() => '');
    return new Map(await Promise.all(names.map(async (name) => [name, await owner(name)] as const)));
  }

  private get directory(): string {
    return join(this.options.home, 'addresses');
  }

  private async ip(...words: string[]): Promise<void> {
    await run([...(this.options.within ?? []), 'ip', ...words]);
  }

  /** All of the text or nothing of it takes effect. */
  private nft(text: string): Promise<void> {
    const [file, ...args] = [...(this.options.within ?? []), 'nft', '-f', '-'];
    return new Promise((resolve, reject) => {
      const child = spawn(file!, args, { stdio: ['pipe', 'ignore', 'pipe'] });
      let errors = '';
      child.stderr.on('data', (data: Buffer) => (errors = (errors + data.toString()).slice(-4096)));
      child.on('error', reject);
      child.on('close', (code) =>
        code === 0 ? resolve() : reject(new Error(`nft ended with ${code}: ${errors}`)),
      );
      child.stdin.on('error', () => undefined);
      child.stdin.end(text);
    });
  }
}

const CONFIGURE = `
for card in /sys/class/net/*; do [ "$(cat "$card/address")" = "$1" ] && name=\${card##*/}; done
[ "$name" ] || { echo "no card with $1" >&2; exit 1; }
ip address show dev "$name" | grep -qF " $2 " && exit
ip address flush dev "$name"
ip address add "$2" dev "$name" && ip link set "$name" up || exit
[ -z "$3" ] || ip route replace default via "$3"
`;

/** Adding what is there changes nothing. */
const EMPTY = `
add table bridge longhaul
add map bridge longhaul taps { type ifname : verdict; }
add chain bridge longhaul guests { type filter hook prerouting priority -200; policy accept; }
flush chain bridge longhaul guests
add rule bridge longhaul guests iifname vmap @taps`;

const forget = (tap: string) => `
add chain bridge longhaul ${tap}
add element bridge longhaul taps { ${tap} : jump ${tap} }
delete element bridge longhaul taps { ${tap} }
flush chain bridge longhaul ${tap}
delete chain bridge longhaul ${tap}`;

/** What may come out of a VM's device. Tagged frames would hide what is in them, so they do not. */
function rules(tap: string, mac: string, address: string | undefined): string {
  const rule = (text: string) => `add rule bridge longhaul ${tap} ${text}`;
  const held = address
    ? [
        rule('ether type ip6 drop'),
        rule(`arp saddr ip != { ${address}, 0.0.0.0 } drop`),
        // Without an address yet, a guest may only ask for one.
        rule(`ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept`),
        rule(`ip saddr != ${address} drop`),
      ]
    : [];
  return [
    EMPTY,
    `add chain bridge longhaul ${tap}`,
    `flush chain bridge longhaul ${tap}`,
    rule(`ether saddr != ${mac} drop`),
    rule('ether type != { arp, ip, ip6 } drop'),
    rule(`arp saddr ether != ${mac} drop`),
    rule('udp sport { 67, 547 } drop'),
    rule('icmpv6 type { nd-router-advert, nd-redirect } drop'),
    ...held,
    `add element bridge longhaul taps { ${tap} : jump ${tap} }`,
    '',
  ].join('\n');
}

const toNumber = (address: string) =>
  address.split('.').reduce((number, part) => number * 256 + Number(part), 0);

const toText = (number: number) =>
  [24, 16, 8, 0].map((shift) => Math.floor(number / 2 ** shift) % 256).join('.');
