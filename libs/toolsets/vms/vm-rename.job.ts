import { defineJobKind } from '@longhaul/jobs';
import { z } from 'zod';

/** A VM's name: on its row, in the provider's records, and inside the guest. `from` is put back when the guest refuses. */
export const vmRename = defineJobKind({
  name: 'vm.rename',
  version: 1,
  payload: z.strictObject({ hostname: z.string(), from: z.string() }),
  result: z.strictObject({ hostname: z.string() }),
  scope: 'vms:power',
  slot: 'lifecycle',
  lane: 'interactive',
  queueSeconds: 45,
  runSeconds: () => 120,
});
