import { buffer } from 'node:stream/consumers';
import { artifactNotFound, type ArtifactStore } from '@longhaul/artifacts';
import { failpoint } from '@longhaul/config/failpoint';
import { AppError } from '@longhaul/errors';
import { traced } from '@longhaul/telemetry';
import { installFile, stopInstallation, type InstallEnd } from '@longhaul/guest';
import type { Outcome } from '@longhaul/jobs';
import type { Artifact } from '@longhaul/persistence';
import { isOff } from '@longhaul/vm-providers';
import { defineHandler, vmOf } from '../handler.js';
import { currentEpoch } from '../vms/epoch.js';
import { vmInstall, type VmInstallResult } from './vm-install.job.js';

/** How long the guest may download by the address that it gets. */
const URL_SECONDS = 900;

/** Downloads the artifact in the guest, or pushes it there; what an attempt that was lost has begun goes on. */
export const vmInstallHandler = defineHandler({
  kind: vmInstall,

  async run(context, { artifact_id, destination_path: path, mode, owner, backup }) {
    const { artifacts, attempts, cancel, db, job, ref, stop } = context;
    const vm = await vmOf(context);
    const provider = context.vmProvider(vm);
    if (cancel.aborted && (await attempts.intents(job.id)).length === 0) return { state: 'cancelled' };
    const artifact = await db.artifact.findUnique({ where: { id: artifact_id } });
    if (!artifact || artifact.vmId !== vm.id) throw artifactNotFound();

    const sizeBytes = Number(artifact.sizeBytes);
    const sha256 = Buffer.from(artifact.sha256).toString('hex');
    const url = await artifacts.store.downloadUrl(artifact, URL_SECONDS, provider.guestApiUrl);
    const end = await traced('guest install file', { kind: 'client' }, () =>
      installFile(
        provider.guest(vm.id),
        { id: job.id, path, sizeBytes, sha256, mode, owner, backup },
        { url, read: (offset, length) => readRange(artifacts.store, artifact, offset, length) },
        {
          async begin(guest) {
            const epoch = await currentEpoch(db, vm.id, provider, guest);
            await attempts.intend(ref, 'install', epoch);
            failpoint('installing');
            return epoch;
          },
          async unreachable() {
            if (!isOff(await provider.observe(vm.id))) return;
            throw new AppError(
              'guest_unreachable',
              'The VM is off. The old file or the new one is there; start it and repeat.',
            );
          },
          progress: (bytes) =>
            context.progress({ progress: bytes, total: sizeBytes, message: `${bytes} bytes` }),
          stop,
          cancel,
        },
      ),
    );
    failpoint('installed');
    return outcomeOf(end, { changed: end === 'installed', size_bytes: sizeBytes, sha256 });
  },

  async cleanUp(context) {
    const vm = await vmOf(context);
    const provider = context.vmProvider(vm);
    if (isOff(await provider.observe(vm.id))) return;
    await provider.guest(vm.id).session((guest) => stopInstallation(guest, context.job.id));
  },
});

function outcomeOf(end: InstallEnd, result: VmInstallResult): Outcome {
  return end === 'cancelled' || end === 'timed_out' ? { state: end } : { state: 'succeeded', result };
}

/** Fewer bytes than `length` only at the end. */
async function readRange(
  store: ArtifactStore,
  { id, sizeBytes }: Artifact,
  offset: number,
  length: number,
): Promise<Buffer> {
  const most = Math.min(length, Number(sizeBytes) - offset);
  return most > 0 ? buffer(await store.read(id, { offset, length: most })) : Buffer.alloc(0);
}
