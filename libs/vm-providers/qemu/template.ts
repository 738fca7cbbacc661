import { randomUUID } from 'node:crypto';
import { readdir, rename, rm } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { AgentChannel } from '@longhaul/guest';
import { waitForAgent } from './boot.js';
import { hash } from './hash.js';
import { machineArguments, type Machine } from './machine.js';
import { letRun, saveMemory } from './memory.js';
import { launch, terminate } from './process.js';
import { asUser, makeOwnedDirectory, run } from './programs.js';
import { checkSocketPath, exists, filesIn } from './vm-files.js';

/** The machine that warm templates are saved from: VMs of this size start in half a second, others boot. */
export const TEMPLATE_SHAPE = { cpus: 1, memoryMb: 1024 };

export interface TemplateOptions {
  /** Folder of the image, with root.qcow2. */
  image: string;
  /** Of TEMPLATE_SHAPE. */
  machine: Machine;
  /** Of QEMU. */
  version: string;
  user: string | undefined;
  /** How long the guest may take to boot, milliseconds. */
  bootMs: number;
  onProgress: (line: string) => void;
}

/**
 * A VM that has booted once, its memory saved, its disk frozen: a folder with disk.qcow2 and memory.zst, which belong
 * together and never change. Made where it is missing; appears by a rename, and of several processes the first one wins.
 */
export async function ensureTemplate(options: TemplateOptions): Promise<string> {
  const { image, machine, version, user, bootMs, onProgress } = options;
  const id = randomUUID();
  const layout = machineArguments(filesIn('/', '-'), { ...machine, kernel: '', initrd: '' });
  const model = machine.accelerator === 'kvm' ? cpus()[0]?.model : '';
  const template = join(image, `warm-${hash(JSON.stringify([version, layout, model]))}`);
  if (await exists(template)) return template;

  onProgress(`Booting the image once to make the warm template (${machine.accelerator})`);
  const work = join(image, `.warm-${randomUUID().slice(0, 8)}`);
  checkSocketPath(work);
  const files = filesIn(work, id);
  await makeOwnedDirectory(work, user);
  try {
    const overlay = ['qemu-img', 'create', '-q', '-f', 'qcow2', '-b', '../root.qcow2', '-F', 'qcow2'];
    await run(asUser(user, [...overlay, files.disk]));
    await launch(files, machine, { user, incoming: false, attached: true });
    await letRun(files);
    const guest = new AgentChannel({ socketPath: files.agent, lockDirectory: files.locks });
    await waitForAgent(files, guest, bootMs);
    // What every VM runs first is read into the page cache, and so comes with the memory.
    const warm = 'setsid true; hostname; ip link; perl -e 1; dd </dev/null; stat /; sync';
    await guest.session((session) => session.run({ path: '/bin/sh', args: ['-c', warm] }, 10_000));
    await saveMemory(files);
    await terminate(files);
    const parts = (await readdir(work)).filter((file) => !['disk.qcow2', 'memory.zst'].includes(file));
    for (const part of parts) await rm(join(work, part), { recursive: true });
    await run(['chmod', '-R', 'a+rX,a-w', work]);
    await rename(work, template).catch(async (error: NodeJS.ErrnoException) => {
      // Another process was faster.
      if (!(await exists(template))) throw error;
    });
  } finally {
    await terminate(files);
    await rm(work, { recursive: true, force: true });
  }
  return template;
}
