import { AppError } from '@longhaul/errors';
import { defineJobTool } from '@longhaul/mcp';
import type { Vm } from '@longhaul/persistence';
import { z } from 'zod';
import { idempotencyKey, vmId } from '../arguments.js';
import { requireAbility } from '../vms/abilities.js';
import { force, makeWay } from '../vms/make-way.js';
import { observedOf } from '../vms/observed.js';
import { requireQuota } from '../vms/quota.js';
import { sizeArguments } from '../vms/size-arguments.js';
import { vmJobAnswer, vmJobShape } from '../vms/vm-job.js';
import { vmResize } from '../vms/vm-resize.job.js';

const { cpus, memory_mb, disk_gb } = sizeArguments;

export const resizeVm = defineJobTool({
  name: 'resize_vm',
  title: 'Resize a VM',
  description:
    'Changes CPUs and memory of a VM that is off, or grows the disk of any VM, with the file system of a guest that runs. A disk never shrinks. The same disk_gb once more grows a file system that has not grown yet.',
  toolset: 'fleet',
  scope: 'vms:power',
  annotations: { readOnlyHint: false, destructiveHint: false, idempotentHint: true, openWorldHint: false },
  vm: { slot: 'lifecycle', alone: true },
  input: z.strictObject({
    vm_id: vmId,
    cpus: cpus.optional(),
    memory_mb: memory_mb.optional(),
    disk_gb: disk_gb.optional(),
    force,
    idempotency_key: idempotencyKey,
  }),
  output: z.object(vmJobShape),
  answerWithinMs: 0,
  async submit(call, { force, idempotency_key: idempotencyKey, vm_id: _vmId, ...wanted }) {
    const { vm } = call;
    const from = { cpus: vm.cpus, memory_mb: vm.memoryMb, disk_gb: vm.diskGb };
    const given = Object.fromEntries(Object.entries(wanted).filter(([, value]) => value !== undefined));
    const to = { ...from, ...given };
    requireSense(vm, given, to);
    if (force) await makeWay(call);
    return call.submit(
      vmResize,
      { to, from },
      {
        idempotencyKey,
        alongside: (tx) =>
          requireQuota(tx, vm.projectId, {
            vms: 0,
            cpus: to.cpus - from.cpus,
            memoryMb: to.memory_mb - from.memory_mb,
            diskGb: to.disk_gb - from.disk_gb,
          }),
      },
    );
  },
  answer: vmJobAnswer,
});

function requireSense(vm: Vm, given: object, to: { cpus: number; memory_mb: number; disk_gb: number }) {
  if (Object.keys(given).length === 0)
    throw new AppError('invalid_arguments', 'cpus, memory_mb, disk_gb: give at least one of them.');
  requireAbility(observedOf(vm).abilities, 'resize');
  if (to.disk_gb < vm.diskGb)
    throw new AppError('invalid_arguments', `disk_gb: the disk has ${vm.diskGb} GB and cannot shrink.`);
  const isOther = to.cpus !== vm.cpus || to.memory_mb !== vm.memoryMb;
  if (isOther && vm.powerState === 'running')
    throw new AppError('vm_state_blocked', 'CPUs and memory change while the VM is off. Stop it first.', {
      power_state: vm.powerState,
    });
}
