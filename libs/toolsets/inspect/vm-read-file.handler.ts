import { readGuestFile } from '@longhaul/guest';
import { defineHandler, vmOf } from '../handler.js';
import { vmReadFile } from './vm-read-file.job.js';

export const vmReadFileHandler = defineHandler({
  kind: vmReadFile,
  async run(context, { path, offset, max_bytes: maxBytes }) {
    const vm = await vmOf(context);
    const channel = context.vmProvider(vm).guest(vm.id);
    const { data, sizeBytes, modifiedAt } = await channel.session(
      (guest) => readGuestFile(guest, path, offset, maxBytes),
      { signal: context.stop },
    );
    const result = {
      data_base64: data.toString('base64'),
      size_bytes: sizeBytes,
      modified_at: modifiedAt.toISOString(),
    };
    return { state: 'succeeded', result };
  },
});
