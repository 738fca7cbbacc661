import { randomUUID } from 'node:crypto';
import { open, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { failpoint } from '@longhaul/config/failpoint';
import { AppError } from '@longhaul/errors';
import type { VmSpec } from '../provider.js';

const ID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
/** `sun_path` holds 108 bytes, the last one a NUL. */
const MAX_SOCKET_PATH = 107;

export type Accelerator = 'kvm' | 'tcg';

/** What a VM is, as its vm.json says. */
export interface VmRecord {
  spec: VmSpec;
  /** Folder name in the image cache; the disk is an overlay on it for as long as the VM lives. */
  image: string;
  accelerator: Accelerator;
  /** File name of the disk: another one after each reinstallation. */
  disk: string;
  /** Of the disk that cloud-init reads at the first boot. */
  seed?: string;
  /** Whether the disk is larger than the image's was. */
  isLarger?: boolean;
  /** Token of the last reinstallation. */
  reinstallation?: string;
  /** Whether the guest has its own name, identifiers and random seed. */
  personalised: boolean;
}

/** Where the parts of one VM are. */
export interface VmFiles {
  id: string;
  directory: string;
  record: string;
  /** The first one; the record knows which one it is now. */
  disk: string;
  /** Memory of a suspended VM; a link to the template's for a VM that never ran. Gone before the guest executes. */
  memory: string;
  /** The same while it is being written, and when all of it is. */
  memoryPart: string;
  memoryWritten: string;
  /** There while the VM is meant to run: a VM that is not running then has crashed. */
  running: string;
  /** There while the guest's clock stands at the moment when it was stopped. */
  clockStale: string;
  /** Held by the QEMU process through flock(2), for as long as it lives: never two for one VM. */
  processLock: string;
  /** Symlink to the socket of the moment, so that a stuck connection can be left behind. */
  agent: string;
  qmp: readonly [string, string];
  locks: string;
}

export const isVmId = (text: string) => ID.test(text);

/** The files of a VM. Throws `vm_not_found` for what cannot be an id: it would become a path. */
export function vmFiles(home: string, id: string): VmFiles {
  if (!isVmId(id)) throw vmNotFound(id);
  // Locks sit outside: whoever asks for a VM that is gone must not bring back a part of its directory.
  const directory = join(home, 'vms', id);
  checkSocketPath(directory);
  return filesIn(directory, id, join(home, 'locks', id));
}

/** Throws where the sockets of a VM in this folder would have too long a path. */
export function checkSocketPath(directory: string): void {
  const longest = join(directory, 'agent-00000000.sock');
  if (Buffer.byteLength(longest) > MAX_SOCKET_PATH) {
    const excess = Buffer.byteLength(longest) - MAX_SOCKET_PATH;
    throw new Error(
      `The path of a socket, ${longest}, is ${excess} bytes too long. Set LONGHAUL_HOME to a shorter path.`,
    );
  }
}

/** The files of a VM whose folder is elsewhere: one that is being made. */
export function filesIn(directory: string, id: string, locks = join(directory, 'locks')): VmFiles {
  const at = (name: string) => join(directory, name);
  return {
    id,
    directory,
    record: at('vm.json'),
    disk: at('disk.qcow2'),
    memory: at('memory.zst'),
    memoryPart: at('memory.part'),
    memoryWritten: at('memory.written'),
    running: at('running'),
    clockStale: at('clock-stale'),
    processLock: at('process.lock'),
    agent: at('agent.sock'),
    qmp: [at('qmp-0.sock'), at('qmp-1.sock')],
    locks,
  };
}

export function vmNotFound(id: string): AppError {
  return new AppError('vm_not_found', `There is no VM ${id.slice(0, 64)} on this host.`);
}

export const listVms = async (home: string) => (await namesOfVms(home)).filter(isVmId);

/** Removes all files of a VM, out of the list at once; what a crash leaves behind goes with the repeated call. */
export async function removeVm(home: string, { id, directory, locks }: VmFiles): Promise<void> {
  const vms = join(home, 'vms');
  if (await exists(directory)) await rename(directory, join(vms, `.gone-${id}-${randomUUID()}`));
  failpoint('moved-away');
  await removeRemains(home, id);
  await rm(locks, { recursive: true, force: true });
}

/** Removes what crashes have left of VMs that were being made or removed: folders with `part` in their name. */
export async function removeRemains(home: string, part: string): Promise<void> {
  for (const name of await namesOfVms(home)) {
    if (name.includes(part)) await rm(join(home, 'vms', name), { recursive: true, force: true });
  }
}

/** Of VMs, and of those that are being made or removed. */
const namesOfVms = (home: string) => readdir(join(home, 'vms')).catch(ifMissing<string[]>([]));

export async function readRecord(files: VmFiles): Promise<VmRecord | undefined> {
  const text = await readFile(files.record, 'utf8').catch(ifMissing(undefined));
  // Records of VMs made before disks could be replaced do not name theirs.
  return text === undefined ? undefined : ({ disk: basename(files.disk), ...JSON.parse(text) } as VmRecord);
}

export async function writeRecord(files: VmFiles, record: VmRecord): Promise<void> {
  const prepared = `${files.record}.${process.pid}`;
  await writeFile(prepared, JSON.stringify(record, undefined, 2));
  await sync(prepared);
  await rename(prepared, files.record);
  await sync(files.directory);
}

export const exists = (path: string) => stat(path).then(() => true, ifMissing(false));

/** Removes files and makes sure that a crash of the host does not bring them back. */
export async function removeDurably(directory: string, paths: string[]): Promise<void> {
  for (const path of paths) await rm(path, { force: true });
  await sync(directory);
}

/** Writes a file or a directory's list of names through to the disk. */
export async function sync(path: string): Promise<void> {
  const handle = await open(path, 'r');
  await handle.sync().finally(() => handle.close());
}

function ifMissing<T>(value: T): (error: NodeJS.ErrnoException) => T {
  return (error) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return value;
    throw error;
  };
}
