import { createHash } from 'node:crypto';
import { gatewayForward } from './gateway.js';
import type { Accelerator, VmFiles } from './vm-files.js';

/** Everything that a memory image depends on: a VM resumes only on the machine that its memory was saved from. */
export interface Machine {
  accelerator: Accelerator;
  cpus: number;
  memoryMb: number;
  /** Without them the disk is booted. */
  kernel?: string;
  initrd?: string;
  /** Path of the disk that cloud-init reads. */
  seed?: string;
  /** URL of the server that the guest reaches. The back end of the network card is no part of its memory. */
  gateway?: string;
  /** Device of the host that the network card leads to, instead of QEMU's own network. */
  tap?: string;
}

/** Disk of a VM for which nobody says otherwise: as large as the default image's own. */
export const IMAGE_DISK_GB = 10;

export const CONSOLE_BYTES = 65_536;

/**
 * What QEMU may keep of the code that it translates for an emulated guest, MiB on the host beside the guest's own memory.
 * It translates libraries anew for each process, as each has them at another address, and forgets nothing before it is
 * full: with its 1 GiB, hundreds of copies of a page's code. A guest that boots again writes over such pages, each byte at
 * the cost of all copies, for minutes. A smaller one is no slower otherwise (docs/benchmarks.md).
 */
export const TRANSLATIONS_MB = 128;

/** Promises of fast copies byte by byte, which emulation does not keep: without them Linux goes by words of eight. */
export const BYTEWISE_FEATURES = ['erms', 'fsrm'];

const EMULATION = [
  ...['-accel', `tcg,tb-size=${TRANSLATIONS_MB}`],
  ...['-cpu', ['max', ...BYTEWISE_FEATURES.map((feature) => `-${feature}`)].join(',')],
];

const KERNEL_ARGUMENTS = 'console=ttyS0 quiet panic=5 net.ifnames=0';

/** What every guest has in QEMU's user-mode network. */
export const GUEST_ADDRESS = '10.0.2.15';

/**
 * The command line of a VM, without what decides how it starts. The i440fx machine takes disks and network cards at
 * run time without reserved slots. The serial console goes to a ring in memory: a guest cannot fill the host's disk.
 */
export function machineArguments(files: VmFiles, machine: Machine): string[] {
  const socket = (id: string, path: string) => [
    '-chardev',
    `socket,id=${id},path=${escapeCommas(path)},server=on,wait=off`,
  ];
  const kernel =
    machine.kernel !== undefined && machine.initrd !== undefined
      ? [...['-kernel', machine.kernel, '-initrd', machine.initrd], '-append', KERNEL_ARGUMENTS]
      : [];
  const disk = (id: string, path: string, format: string) =>
    `if=none,id=${id},format=${format},file=${escapeCommas(path)}`;
  const seed = machine.seed ? ['-drive', `${disk('seed', machine.seed, 'raw')},readonly=on`] : [];
  const bootFirst = machine.kernel === undefined ? ',bootindex=0' : '';
  const gateway = machine.gateway ? [gatewayForward(files, machine.gateway)] : [];
  // Without `restrict` a guest reaches every service on the host's loopback.
  const network = machine.tap
    ? `tap,id=net0,ifname=${machine.tap},script=no,downscript=no`
    : ['user,id=net0,restrict=on', ...gateway].join(',');
  return [
    'qemu-system-x86_64',
    ...['-name', `longhaul-${files.id}`, '-uuid', files.id],
    ...['-machine', 'pc'],
    ...(machine.accelerator === 'kvm' ? ['-accel', 'kvm', '-cpu', 'host'] : EMULATION),
    ...['-smp', `${machine.cpus}`, '-m', `${machine.memoryMb}`],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-sandbox', 'on,obsolete=deny'],
    // A guest that powered off stays visible as such, instead of looking like a crashed process.
    ...['-action', 'shutdown=pause'],
    ...kernel,
    ...['-chardev', `ringbuf,id=console,size=${CONSOLE_BYTES}`, '-serial', 'chardev:console'],
    ...['-drive', `${disk('root', files.disk, 'qcow2')},discard=unmap`],
    ...['-device', `virtio-blk-pci,id=root-device,drive=root${bootFirst}`],
    ...['-device', 'virtio-serial-pci', ...socket('agent', firstAgentSocket(files))],
    ...['-device', 'virtserialport,chardev=agent,name=org.qemu.guest_agent.0'],
    ...['-netdev', network],
    ...['-device', `virtio-net-pci,netdev=net0,mac=${macAddress(files.id)}`],
    ...['-device', 'virtio-rng-pci'],
    ...files.qmp.flatMap((path, index) => [
      ...socket(`qmp-${index}`, path),
      ...['-mon', `chardev=qmp-${index},mode=control`],
    ]),
    ...(seed.length > 0 ? [...seed, '-device', 'virtio-blk-pci,drive=seed'] : []),
  ];
}

export const firstAgentSocket = (files: VmFiles) => `${files.directory}/agent-0.sock`;

/** A locally administered address, always the same for one VM. */
export function macAddress(id: string): string {
  const digits = createHash('sha256').update(id).digest('hex').slice(0, 6);
  return `52:54:00:${digits.match(/../g)?.join(':')}`;
}

/** Lists of `key=value` are cut at commas, unless doubled. */
const escapeCommas = (path: string) => path.replaceAll(',', ',,');
