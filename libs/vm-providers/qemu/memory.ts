import { rename, rm } from 'node:fs/promises';
import { failpoint } from '@longhaul/config/failpoint';
import { AppError } from '@longhaul/errors';
import { quote } from '@longhaul/guest';
import { poll } from './programs.js';
import { QmpRefusal, withQmp } from './qmp.js';
import { exists, removeDurably, sync, type VmFiles } from './vm-files.js';

const SAVE_MS = 10 * 60_000;
const LOAD_MS = 10 * 60_000;
const COMPRESSOR_MS = 10_000;

/*
 * A memory image fits exactly one state of the disk. So it appears only once all of it is written and the guest stands
 * still, and it is gone, durably, before the guest executes again: no crash in between leaves an image beside a disk
 * that has changed since.
 */

/**
 * Stops the guest and writes its memory to `files.memory`. The process stays, in state `postmigrate`. Repeatable at any
 * point. Throws when the image cannot be written (a full disk, say); the guest is then still stopped.
 */
export async function saveMemory(files: VmFiles): Promise<void> {
  const part = quote(files.memoryPart);
  const written = quote(files.memoryWritten);
  await withQmp(files, async (qmp) => {
    const { status } = await qmp.execute<{ status: string }>('query-status');
    if (status === 'postmigrate') return;
    await qmp.execute('stop');
    const migration = await qmp.execute<{ status?: string }>('query-migrate');
    if (isMoving(migration.status)) return;
    await removeDurably(files.directory, [files.memoryPart, files.memoryWritten]);
    // The default limit of 1 Gbit/s is meant for networks.
    await qmp.execute('migrate-set-parameters', { 'max-bandwidth': 2 ** 40 });
    await qmp.execute('migrate', { uri: `exec:zstd -q -1 -T0 > ${part} && mv -f ${part} ${written}` });
  });
  const failure = () => new AppError('unavailable', `The memory of VM ${files.id} could not be written.`);
  const outcome = await poll(() => lookAtSaving(files), SAVE_MS);
  if (outcome !== 'postmigrate') throw failure();
  // QEMU is through before the compressor is.
  const isWritten = async () =>
    (await exists(files.memoryWritten)) || (await exists(files.memory)) || undefined;
  if (!(await poll(isWritten, COMPRESSOR_MS))) throw failure();
  if (await exists(files.memory)) return;
  await sync(files.memoryWritten);
  await rename(files.memoryWritten, files.memory);
  await sync(files.directory);
}

async function lookAtSaving(files: VmFiles): Promise<'postmigrate' | 'failed' | undefined> {
  return withQmp(files, async (qmp) => {
    const migration = await qmp.execute<{ status?: string }>('query-migrate');
    if (migration.status === 'failed' || migration.status === 'cancelled') return 'failed';
    const { status } = await qmp.execute<{ status: string }>('query-status');
    return status === 'postmigrate' ? status : undefined;
  });
}

/** Reads `files.memory` into a process launched with `incoming`. It stays stopped. Throws when the process rejects the image. */
export async function loadMemory(files: VmFiles): Promise<void> {
  const uri = `exec:zstd -q -d -c < ${quote(files.memory)}`;
  const loaded = await poll(
    () =>
      withQmp(files, async (qmp) => {
        const { status } = await qmp.execute<{ status: string }>('query-status');
        if (status !== 'inmigrate') return true;
        const migration = await qmp.execute<{ status?: string }>('query-migrate');
        if (migration.status && migration.status !== 'none') return undefined;
        await qmp.execute('migrate-incoming', { uri }).catch((error: Error) => {
          // It starts a little after it was asked to.
          if (!(error instanceof QmpRefusal && error.message.includes('already been started'))) throw error;
        });
        return undefined;
      }),
    LOAD_MS,
    20,
  );
  if (!loaded) throw new AppError('unavailable', `The memory of VM ${files.id} could not be read in time.`);
}

/** Lets a stopped guest execute: from here on its memory image is out of date, and one being written is of no use. */
export async function letRun(files: VmFiles): Promise<void> {
  const isStill = async () => {
    const migration = await withQmp(files, (qmp) => qmp.execute<{ status?: string }>('query-migrate'));
    return isMoving(migration.status) || migration.status === 'cancelling' ? undefined : true;
  };
  if (!(await isStill())) await withQmp(files, (qmp) => qmp.execute('migrate_cancel'));
  await poll(isStill, COMPRESSOR_MS);
  await poll(async () => ((await exists(files.memoryPart)) ? undefined : true), COMPRESSOR_MS);
  await removeDurably(files.directory, [files.memory, files.memoryPart, files.memoryWritten]);
  await withQmp(files, (qmp) => qmp.execute('cont'));
  failpoint('let-run');
}

/** Puts an image aside that no process accepts, so that the next start boots. */
export async function rejectMemory(files: VmFiles): Promise<void> {
  await rm(`${files.memory}.rejected`, { force: true });
  await rename(files.memory, `${files.memory}.rejected`);
}

const isMoving = (migration: string | undefined) =>
  ['setup', 'active', 'device', 'pre-switchover', 'wait-unplug'].includes(migration ?? '');
