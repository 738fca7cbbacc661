import { createHash, randomUUID } from 'node:crypto';
import { readEpoch, writeEpoch, type GuestChannel } from '@longhaul/guest';
import type { CommandGuestUnderTest } from '../../libs/guest/command.contract.js';
import { type FileToInstall, installFile, type InstallOptions } from '../../libs/guest/install.js';

export const digest = (data: Buffer) => createHash('sha256').update(data).digest('hex');

interface Differently extends Partial<FileToInstall> {
  url?: string;
  options?: Partial<InstallOptions>;
  /** What stands between the installation and the guest's own. */
  channel?: (own: GuestChannel) => GuestChannel;
}

/** A guest for the tests around it, in which they install files and look at what came of it. */
export function installing(make: () => Promise<CommandGuestUnderTest>) {
  let guest: CommandGuestUnderTest;
  beforeAll(async () => {
    guest = await make();
    await cover();
  });
  afterAll(() => guest?.stop());

  /** What a test of what is denied might break is a copy. */
  const cover = () =>
    sh(
      'cp -a /etc /run/etc && mount --bind /run/etc /etc && for folder in /boot /root; do mount -t tmpfs tmpfs $folder; done',
    );
  /** What a script in the guest prints. */
  const sh = async (script: string, ...args: string[]) => {
    const program = { path: 'sh', args: ['-c', script, 'sh', ...args] };
    const result = await guest.channel.session((session) => session.run(program, 20_000));
    return `${result.stdout}${result.stderr}`.trim();
  };
  const newFolder = async () => {
    const folder = `/tmp/longhaul ${randomUUID()}`;
    await sh('mkdir -p "$1"', folder);
    return folder;
  };
  /** Offsets of what was pushed through the channel. */
  const sentTo: number[] = [];
  const install = (data: Buffer, path: string, { url, options, channel, ...file }: Differently = {}) => {
    const facts = { sizeBytes: data.length, sha256: digest(data), mode: '640', owner: 'root:root' };
    return installFile(
      channel?.(guest.channel) ?? guest.channel,
      { id: randomUUID(), path, ...facts, backup: false, ...file },
      {
        url,
        read: async (offset, length) => {
          sentTo.push(offset);
          return data.subarray(offset, offset + length);
        },
      },
      {
        begin: async (session) => {
          const epoch = (await readEpoch(session)) ?? randomUUID();
          await writeEpoch(session, epoch);
          return epoch;
        },
        unreachable: async () => {},
        progress: () => {},
        stop: new AbortController().signal,
        cancel: new AbortController().signal,
        ...options,
      },
    );
  };
  const leftovers = () =>
    sh(
      'find /tmp /etc /srv -xdev -name ".longhaul-install.*"; ls -A /var/lib/longhaul/files /run/longhaul/files',
    );
  return {
    sh,
    newFolder,
    install,
    sentTo,
    reboot: async () => {
      await guest.reboot();
      await cover();
    },
    facts: (path: string) => sh('stat -c "%s %a %u:%g %F" "$1"', path),
    content: (path: string) => sh('sha256sum <"$1" | cut -c 1-64', path),
    nothingLeft: async () => expect(await leftovers()).not.toMatch(/\.(part|url|directory|longhaul-install)/),
  };
}

export type Installing = ReturnType<typeof installing>;
