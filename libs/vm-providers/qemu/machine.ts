import { createHash } from 'node:crypto';
import { gatewayForward } from './gateway.js';
import type { Accelerator, VmFiles } from './vm-files.js';

/** Everything that a memory image depends on: a VM resumes only on the machine that its memory was saved from. */
export interface Machine {
  accelerator: Accelerator;
  cpus: number;
  memoryMb: number;
  kernel: string;
  initrd: string;
  /** URL of the server that the guest reaches. The back end of the network card is no part of its memory. */
  gateway?: string;
}

/** Size of the image's file system, and so the smallest disk of a VM (DISK_SIZE in images/build.sh). */
export const IMAGE_DISK_GB = 10;

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
  const gateway = machine.gateway ? [gatewayForward(files, machine.gateway)] : [];
  return [
    'qemu-system-x86_64',
    ...['-name', `longhaul-${files.id}`, '-uuid', files.id],
    ...['-machine', 'pc', '-accel', machine.accelerator],
    ...['-cpu', machine.accelerator === 'kvm' ? 'host' : 'max'],
    ...['-smp', `${machine.cpus}`, '-m', `${machine.memoryMb}`],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-sandbox', 'on,obsolete=deny'],
    // A guest that powered off stays visible as such, instead of looking like a crashed process.
    ...['-action', 'shutdown=pause'],
    ...['-kernel', machine.kernel, '-initrd', machine.initrd],
    ...['-append', 'console=ttyS0 quiet panic=5 net.ifnames=0'],
    ...['-chardev', 'ringbuf,id=console,size=65536', '-serial', 'chardev:console'],
    ...['-drive', `if=none,id=root,format=qcow2,discard=unmap,file=${escapeCommas(files.disk)}`],
    ...['-device', 'virtio-blk-pci,id=root-device,drive=root'],
    ...['-device', 'virtio-serial-pci', ...socket('agent', firstAgentSocket(files))],
    ...['-device', 'virtserialport,chardev=agent,name=org.qemu.guest_agent.0'],
    // Without `restrict` a guest reaches every service on the host's loopback.
    ...['-netdev', ['user,id=net0,restrict=on', ...gateway].join(',')],
    ...['-device', `virtio-net-pci,netdev=net0,mac=${macAddress(files.id)}`],
    ...['-device', 'virtio-rng-pci'],
    ...files.qmp.flatMap((path, index) => [
      ...socket(`qmp-${index}`, path),
      ...['-mon', `chardev=qmp-${index},mode=control`],
    ]),
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
