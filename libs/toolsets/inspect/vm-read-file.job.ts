import { defineJobKind } from '@longhaul/jobs';
import { z } from 'zod';

const result = z.strictObject({
  data_base64: z.string(),
  size_bytes: z.int(),
  modified_at: z.string(),
});

export type VmReadFileResult = z.output<typeof result>;

/** Some bytes of a file in a VM, at most 64 KiB. It changes nothing and can be repeated. */
export const vmReadFile = defineJobKind({
  name: 'vm.read_file',
  version: 1,
  payload: z.strictObject({ path: z.string(), offset: z.int(), max_bytes: z.int() }),
  result,
  scope: 'vms:files',
  lane: 'interactive',
  queueSeconds: 45,
  runSeconds: () => 60,
});

export type VmReadFilePayload = z.output<typeof vmReadFile.payload>;
