import { join } from 'node:path';
import type { VmObservation } from '../provider.js';
import type { ImageCache } from './image-cache.js';
import { loadMemory, rejectMemory } from './memory.js';
import { launch, runState, type RunState } from './process.js';
import { exists, writeRecord, type VmFiles, type VmRecord } from './vm-files.js';

/** Run states that a start cannot continue from. */
export const ENDED = ['shutdown', 'internal-error', 'guest-panicked'];

/** What the state of a VM's process, or that it has none, means together with its files. */
export async function powerOf(files: VmFiles, state: RunState | undefined): Promise<VmObservation['power']> {
  if (state === 'running') return 'running';
  if (state === 'shutdown') return 'stopped';
  if (state && ENDED.includes(state)) return 'crashed';
  if (await exists(files.memory)) return 'suspended';
  if (state) return 'paused';
  return (await exists(files.running)) ? 'crashed' : 'stopped';
}

export interface PowerOnOptions {
  images: ImageCache;
  user: string | undefined;
  gateway: string | undefined;
  tap: string | undefined;
  /** See LaunchOptions. */
  within?: string[];
}

/** Launches the process; with its memory, unless there is none or no process takes it twice. Returns its state. */
export async function powerOn(files: VmFiles, record: VmRecord, options: PowerOnOptions): Promise<RunState> {
  const { images, user, gateway, tap, within } = options;
  const { cpus, memoryMb } = record.spec;
  const seed = record.seed && join(files.directory, record.seed);
  const shape = { cpus, memoryMb, gateway, tap, seed, ...(await images.kernelOf(record.image)) };
  for (let attempt = 0; attempt < 2 && (await exists(files.memory)); attempt++) {
    const { accelerator } = record;
    try {
      await launch(files, { ...shape, accelerator }, { user, within, incoming: true });
      await loadMemory(files);
      return (await runState(files)) ?? 'ended';
    } catch (error) {
      // Only a process that died has judged the image; another trouble is not the image's fault.
      if ((await runState(files)) !== undefined) throw error;
      if (attempt === 1) await rejectMemory(files);
    }
  }
  const accelerator = await images.accelerator();
  if (accelerator !== record.accelerator) await writeRecord(files, Object.assign(record, { accelerator }));
  await launch(files, { ...shape, accelerator }, { user, within, incoming: false });
  return 'prelaunch';
}
