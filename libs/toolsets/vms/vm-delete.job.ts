import { defineJobKind } from '@longhaul/jobs';
import { z } from 'zod';

/** Ends a VM, with its disk, its row and its artifacts. Of a machine that was adopted, only what is known of it here. */
export const vmDelete = defineJobKind({
  name: 'vm.delete',
  version: 1,
  payload: z.strictObject({}),
  result: z.strictObject({ deleted: z.literal(true) }),
  scope: 'vms:power',
  slot: 'lifecycle',
  alone: true,
  lane: 'bulk',
  queueSeconds: 600,
  runSeconds: () => 300,
});
