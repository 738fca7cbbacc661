import { isUtf8 } from 'node:buffer';
import { listGuestDirectory, type GuestFileEntry } from '@longhaul/guest';
import type { z } from 'zod';
import { defineHandler, vmOf } from '../handler.js';
import { vmListDirectory, type entryShape } from './vm-list-directory.job.js';

export const vmListDirectoryHandler = defineHandler({
  kind: vmListDirectory,
  async run(context, { path, limit, cursor }) {
    const vm = await vmOf(context);
    const channel = context.vmProvider(vm).guest(vm.id);
    const after = cursor === undefined ? undefined : Buffer.from(cursor, 'base64url');
    const { entries, next } = await channel.session(
      (guest) => listGuestDirectory(guest, path, after, limit),
      { signal: context.stop },
    );
    const result = { entries: entries.map(shown), next_cursor: next?.toString('base64url') };
    return { state: 'succeeded', result };
  },
});

function shown(entry: GuestFileEntry): z.output<typeof entryShape> {
  const { name, type, sizeBytes, mode, owner, modifiedAt, target } = entry;
  return {
    name: name.toString(),
    name_base64: isUtf8(name) ? undefined : name.toString('base64'),
    type,
    size_bytes: sizeBytes,
    mode: mode.padStart(4, '0'),
    owner,
    modified_at: modifiedAt.toISOString(),
    target: target?.toString(),
    target_base64: !target || isUtf8(target) ? undefined : target.toString('base64'),
  };
}
