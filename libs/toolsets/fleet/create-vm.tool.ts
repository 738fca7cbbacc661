import { projectFor } from '@longhaul/access';
import { AppError } from '@longhaul/errors';
import { defineJobTool } from '@longhaul/mcp';
import { newId } from '@longhaul/persistence';
import { z } from 'zod';
import { idempotencyKey } from '../arguments.js';
import { chosenKey, keyArguments } from '../ssh/key-arguments.js';
import { hostname, hostnameTaken } from '../vms/hostname.js';
import { requireQuota } from '../vms/quota.js';
import { sizeArguments } from '../vms/size-arguments.js';
import { vmCreate } from '../vms/vm-create.job.js';
import { vmJobAnswer, vmJobShape } from '../vms/vm-job.js';
import { placeFor } from './placement.js';

const { cpus, memory_mb, disk_gb } = sizeArguments;

export const createVm = defineJobTool({
  name: 'create_vm',
  title: 'Create a VM',
  description:
    "Makes a VM from an image (list_images) and starts it; commands are off in it, as on every new VM. When it has succeeded, wait_for_job tells its root password, once. A creation that failed leaves a VM to delete. Sizes are bounded by the project's quota.",
  toolset: 'fleet',
  scope: 'vms:power',
  annotations: { readOnlyHint: false, destructiveHint: false, idempotentHint: false, openWorldHint: false },
  input: z.strictObject({
    hostname,
    image: z.string().min(1).max(64).default('default'),
    cpus: cpus.default(1),
    memory_mb: memory_mb.default(1024),
    disk_gb: disk_gb.default(10),
    project_id: z.string().max(64).optional().describe('Default: the first that you may change (whoami)'),
    location: z
      .string()
      .min(1)
      .max(63)
      .optional()
      .describe('Host, as list_vms shows it; default: one with few VMs'),
    ...keyArguments,
    idempotency_key: idempotencyKey,
  }),
  output: z.object(vmJobShape),
  answerWithinMs: 0,
  async submit(call, { hostname, image, project_id, location, idempotency_key: idempotencyKey, ...args }) {
    const { caller, services } = call;
    const projectId = projectFor(caller, project_id);
    const { ssh_key_id, ssh_public_key, ...size } = args;
    const key = await chosenKey(services.db, caller.userId, { ssh_key_id, ssh_public_key });
    const { disk_gb: least } = (await services.images()).find(image);
    if (size.disk_gb < least)
      throw new AppError('invalid_arguments', `disk_gb: the image ${image} takes at least ${least}.`);
    const place = await placeFor(services.db, location);
    const resources = { cpus: size.cpus, memoryMb: size.memory_mb, diskGb: size.disk_gb };
    const id = newId();
    return call.submit(
      vmCreate,
      { root_password: true, ssh_public_key: key, spec: { image, location, ...size } },
      {
        label: hostname,
        idempotencyKey,
        projectId,
        vm: { id, host: place.host, commandSlots: 1 },
        isNewVm: true,
        async alongside(tx) {
          await requireQuota(tx, projectId, { vms: 1, ...resources });
          const { cpus, memoryMb, diskGb } = resources;
          const count = await tx.$executeRaw`
            INSERT INTO vms (id, project_id, hostname, image, provider, host, cpus, memory_mb, disk_gb)
            VALUES (${id}::uuid, ${projectId}::uuid, ${hostname}, ${image}, ${place.provider}, ${place.host},
              ${cpus}, ${memoryMb}, ${diskGb}) ON CONFLICT DO NOTHING`;
          if (count === 0) throw hostnameTaken(hostname);
        },
      },
    );
  },
  answer: vmJobAnswer,
});
