import { z } from 'zod';

const PATH_MAX_BYTES = 4096;

/** Of something that is there: symlinks, `..` and slashes at the end are the guest's to follow. */
export const path = z
  .string()
  .max(PATH_MAX_BYTES)
  .regex(/^\/[^\0]*$/, 'expected an absolute path')
  .refine(
    (text) => Buffer.byteLength(text) < PATH_MAX_BYTES,
    `expected fewer than ${PATH_MAX_BYTES} bytes of UTF-8`,
  )
  .describe('Absolute path in the VM; symlinks are followed');
