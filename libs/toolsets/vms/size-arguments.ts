import { z } from 'zod';

/** Bounds of a VM's size; the provider and the project's quota may set narrower ones. */
export const sizeArguments = {
  cpus: z.int().min(1).max(64),
  memory_mb: z.int().min(256).max(1_048_576),
  disk_gb: z.int().min(1).max(16_384),
};
