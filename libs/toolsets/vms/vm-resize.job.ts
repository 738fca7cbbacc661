import { defineJobKind } from '@longhaul/jobs';
import { z } from 'zod';

export const vmSize = z.strictObject({ cpus: z.int(), memory_mb: z.int(), disk_gb: z.int() });

/** CPUs and memory of a VM that is off; the disk of any. `from` is put back when the provider refuses. */
export const vmResize = defineJobKind({
  name: 'vm.resize',
  version: 1,
  payload: z.strictObject({ to: vmSize, from: vmSize }),
  result: z.strictObject({
    ...vmSize.shape,
    file_system: z.enum(['unchanged', 'grown', 'to_be_grown']),
    message: z.string().optional(),
  }),
  scope: 'vms:power',
  slot: 'lifecycle',
  alone: true,
  lane: 'interactive',
  queueSeconds: 60,
  runSeconds: () => 300,
});
