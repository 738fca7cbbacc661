import { defineJobKind } from '@longhaul/jobs';
import { z } from 'zod';

/** How an answer shows what is in a directory. Names and targets that are no UTF-8 come as base64, too. */
export const entryShape = z.object({
  name: z.string(),
  name_base64: z.string().optional().describe('When the name is no UTF-8'),
  type: z.enum(['file', 'directory', 'symlink', 'fifo', 'socket', 'device', 'other']),
  size_bytes: z.int(),
  mode: z.string(),
  owner: z.string(),
  modified_at: z.string(),
  target: z.string().optional(),
  target_base64: z.string().optional(),
});

const result = z.strictObject({ entries: z.array(entryShape), next_cursor: z.string().optional() });

export type VmListDirectoryResult = z.output<typeof result>;

/** Some entries of a directory in a VM. It changes nothing and can be repeated. */
export const vmListDirectory = defineJobKind({
  name: 'vm.list_directory',
  version: 1,
  payload: z.strictObject({ path: z.string(), limit: z.int(), cursor: z.string().optional() }),
  result,
  scope: 'vms:files',
  lane: 'interactive',
  queueSeconds: 45,
  runSeconds: () => 60,
});
