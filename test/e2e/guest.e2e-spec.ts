import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { newId } from '@longhaul/persistence';
import { QemuProvider, TEMPLATE_SHAPE, IMAGE_DISK_GB } from '@longhaul/vm-providers';
import { describeGuestChannel } from '../../libs/guest/channel.contract.js';
import { IMAGES, SYSTEM_USER } from './stack.js';

describeGuestChannel('guest agent in a VM', async () => {
  const home = mkdtempSync('/tmp/lh-');
  chmodSync(home, 0o755);
  const provider = new QemuProvider({
    home,
    imagesDirectory: IMAGES,
    accelerator: 'auto',
    runAsUser: SYSTEM_USER,
  });
  const id = newId();
  await provider.create({
    id,
    hostname: 'guest',
    image: 'default',
    diskGb: IMAGE_DISK_GB,
    ...TEMPLATE_SHAPE,
  });
  return {
    channel: provider.guest(id),
    async stop() {
      await provider.delete(id);
      rmSync(home, { recursive: true, force: true });
    },
  };
});
