import { z } from 'zod';

const PATH_MAX_BYTES = 4096;
const NAME_MAX_BYTES = 255;

const isShort = (path: string) => Buffer.byteLength(path) < PATH_MAX_BYTES;

/** Of a file that may not be there yet, nor its parents. */
export const destinationPath = z
  .string()
  .max(PATH_MAX_BYTES)
  .regex(/^(\/[^/\x00-\x1f\x7f]+)+$/, 'expected an absolute path of a file, without control characters')
  .refine(isShort, `expected fewer than ${PATH_MAX_BYTES} bytes of UTF-8`)
  .refine((text) => !/\/\.\.?(\/|$)/.test(text), 'expected a path without . and ..')
  .refine(
    (text) => text.split('/').every((name) => Buffer.byteLength(name) <= NAME_MAX_BYTES),
    `expected names of at most ${NAME_MAX_BYTES} bytes`,
  )
  .describe('Absolute path of the file in the VM; missing parents are made');

/** chown of the guest decides whether there is such a user. */
const account = '[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}';
export const owner = z
  .string()
  .regex(new RegExp(`^${account}:${account}$`), 'expected user:group, as names or numbers');

export const fileMode = z.string().regex(/^0?[0-7]{3,4}$/, 'expected an octal mode such as 0644');
