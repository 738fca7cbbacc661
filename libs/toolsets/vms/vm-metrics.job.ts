import { defineJobKind } from '@longhaul/jobs';
import { z } from 'zod';

const numbers = z.record(z.string(), z.number());

/** A look at what a VM uses, by its hypervisor and by its guest, in the units of the names; what nobody knows is left out. */
export const vmMetrics = defineJobKind({
  name: 'vm.metrics',
  version: 1,
  payload: z.strictObject({}),
  result: z.strictObject({ hypervisor: numbers, guest: numbers, measured_at: z.string() }),
  scope: 'vms:read',
  lane: 'interactive',
  queueSeconds: 20,
  runSeconds: () => 60,
});
