import { BYTEWISE_FEATURES, TRANSLATIONS_MB, macAddress } from '../qemu/machine.js';
import type { Accelerator } from '../qemu/vm-files.js';
import type { VmSpec } from '../provider.js';

export type LibvirtNetwork = { kind: 'user' } | { kind: 'network' | 'bridge'; name: string };

export interface DomainParts {
  spec: VmSpec;
  accelerator: Accelerator;
  disk: string;
  kernel: string;
  initrd: string;
  network: LibvirtNetwork;
}

/** LIBVIRT_NETWORK: `user`, `network:<name>` or `bridge:<name>`. Throws for anything else. */
export function parseLibvirtNetwork(text: string): LibvirtNetwork {
  if (text === 'user') return { kind: 'user' };
  const [, kind, name] = /^(network|bridge):([\w.-]{1,50})$/.exec(text) ?? [];
  if (!kind) throw new Error(`${text} is not a network: user, network:<name> or bridge:<name>`);
  return { kind: kind as 'network' | 'bridge', name: name! };
}

export const domainName = (id: string) => `longhaul-${id}`;

/**
 * The XML of a domain whose kernel and initrd come from the image. libvirt's own user-mode network would let the guest
 * reach every service on the host's loopback, so that network is QEMU's, restricted.
 */
export function domainXml({ spec, accelerator, disk, kernel, initrd, network }: DomainParts): string {
  const mac = macAddress(spec.id);
  const isKvm = accelerator === 'kvm';
  const card =
    network.kind === 'user'
      ? ''
      : xml`<interface type='${network.kind}'><source ${network.kind}='${network.name}'/><mac address='${mac}'/>
      <model type='virtio'/><filterref filter='clean-traffic'/></interface>`;
  const restricted = [
    ...['-netdev', 'user,id=net0,restrict=on'],
    ...['-device', `virtio-net-pci,netdev=net0,mac=${mac},addr=0x10`],
  ];
  const disabled = BYTEWISE_FEATURES.map((name) => xml`<feature policy='disable' name='${name}'/>`).join('');
  const processor = isKvm
    ? `<features><acpi/></features><cpu mode='host-passthrough'/>`
    : xml`<features><acpi/><tcg><tb-cache unit='MiB'>${TRANSLATIONS_MB}</tb-cache></tcg></features>` +
      `<cpu mode='maximum'>${disabled}</cpu>`;
  const words = network.kind === 'user' ? restricted.map((word) => xml`<qemu:arg value='${word}'/>`) : [];
  return (
    xml`<domain type='${isKvm ? 'kvm' : 'qemu'}' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>${domainName(spec.id)}</name>
  <uuid>${spec.id}</uuid>
  <title>${spec.hostname}</title>
  <memory unit='MiB'>${spec.memoryMb}</memory>
  <vcpu>${spec.cpus}</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>${kernel}</kernel>
    <initrd>${initrd}</initrd>
    <cmdline>console=ttyS0 quiet panic=5 net.ifnames=0</cmdline>
  </os>
  ` +
    processor +
    xml`
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' discard='unmap'/>
      <source file='${disk}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <controller type='usb' model='none'/>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <serial type='null'/>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    <memballoon model='none'/>
    ` +
    card +
    `
  </devices>
  <qemu:commandline>${words.join('')}</qemu:commandline>
</domain>
`
  );
}

/** A template whose values are escaped, for text and attributes alike. */
function xml(parts: TemplateStringsArray, ...values: (string | number)[]): string {
  const escapes: Record<string, string> = {
    '&': '&amp;',
    '<': '&lt;',
    '>': '&gt;',
    "'": '&apos;',
    '"': '&quot;',
  };
  const escaped = values.map((value) => String(value).replace(/[&<>'"]/g, (sign) => escapes[sign]!));
  return String.raw({ raw: parts }, ...escaped);
}
