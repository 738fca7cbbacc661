import { defineJobKind } from '@longhaul/jobs';
import { z } from 'zod';

/** Makes the machine of a row that exists already, from its image; repeating it is harmless. */
export const vmCreate = defineJobKind({
  name: 'vm.create',
  version: 1,
  payload: z.strictObject({}),
  result: z.strictObject({ power_state: z.string() }),
  scope: 'vms:power',
  slot: 'lifecycle',
  lane: 'bulk',
  queueSeconds: 600,
  runSeconds: () => 600,
});
