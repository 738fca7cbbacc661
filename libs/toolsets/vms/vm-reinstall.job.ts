import { defineJobKind } from '@longhaul/jobs';
import { z } from 'zod';

/**
 * A new disk from an image, which erases the old one. Its one-time secret is the new root password. Afterwards commands are
 * switched off, as on every new VM.
 */
export const vmReinstall = defineJobKind({
  name: 'vm.reinstall',
  version: 1,
  payload: z.strictObject({ image: z.string(), ssh_public_key: z.string().optional() }),
  result: z.strictObject({ power_state: z.string(), image: z.string() }),
  scope: 'vms:power',
  slot: 'lifecycle',
  alone: true,
  lane: 'bulk',
  queueSeconds: 600,
  runSeconds: () => 3600,
});
