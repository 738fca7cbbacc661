import { defineJobKind } from '@longhaul/jobs';
import { z } from 'zod';

/**
 * Makes the machine of a row that exists already, from its image; repeating it is harmless. With `root_password` its one-time
 * secret is that.
 */
export const vmCreate = defineJobKind({
  name: 'vm.create',
  version: 1,
  payload: z.strictObject({
    root_password: z.boolean().optional(),
    ssh_public_key: z.string().optional(),
    /** What was asked for; the row has it, too. */
    spec: z.looseObject({}).optional(),
  }),
  result: z.strictObject({ power_state: z.string() }),
  scope: 'vms:power',
  slot: 'lifecycle',
  lane: 'bulk',
  queueSeconds: 600,
  runSeconds: () => 3600,
});
