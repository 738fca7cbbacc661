import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { jest } from '@jest/globals';
import { eventually } from '../../test/support/eventually.js';
import type { CommandGuestUnderTest } from './command.contract.js';
import { readEpoch, writeEpoch } from './command.js';
import { type FileToInstall, installFile, type InstallOptions } from './install.js';

const digest = (data: Buffer) => createHash('sha256').update(data).digest('hex');

/**
 * What an installation keeps in every Linux guest. `serves`: it has what it takes to serve itself over HTTP; `lacks`: a
 * single program of it can be taken away.
 */
export function describeInstall(
  name: string,
  make: () => Promise<CommandGuestUnderTest>,
  { serves, lacks }: { serves?: boolean; lacks?: boolean },
): void {
  // An emulated VM is twenty times slower than this host.
  jest.setTimeout(90_000);
  describe(`install: ${name}`, () => {
    let guest: CommandGuestUnderTest;

    beforeAll(async () => {
      guest = await make();
      // What a test of what is denied might break is a copy.
      await sh(
        'cp -a /etc /run/etc && mount --bind /run/etc /etc && for folder in /boot /root; do mount -t tmpfs tmpfs $folder; done',
      );
    });
    afterAll(() => guest?.stop());

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
    const sentTo: number[] = [];
    const install = (data: Buffer, path: string, more: Partial<FileToInstall> & More = {}) => {
      const { url, options, ...file } = more;
      const facts = { sizeBytes: data.length, sha256: digest(data), mode: '640', owner: 'root:root' };
      return installFile(
        guest.channel,
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
    interface More {
      url?: string;
      options?: Partial<InstallOptions>;
    }
    const facts = (path: string) => sh('stat -c "%s %a %u:%g %F" "$1"', path);
    const content = (path: string) => sh('sha256sum <"$1" | cut -c 1-64', path);
    const leftovers = () =>
      sh(
        'find /tmp /etc /srv -xdev -name ".longhaul-install.*"; ls -A /var/lib/longhaul/files /run/longhaul/files',
      );
    const nothingLeft = async () =>
      expect(await leftovers()).not.toMatch(/\.(part|url|directory|longhaul-install)/);

    it('puts a pushed file of any bytes into place, with its parents, mode and owner', async () => {
      const path = `${await newFolder()}/new/it's/a "file"`;
      const data = randomBytes(3_000_001);
      const told: number[] = [];
      const options = { progress: (bytes: number) => void told.push(bytes) };
      expect(await install(data, path, { mode: '4711', owner: '12:34', options })).toBe('installed');
      expect(await facts(path)).toBe('3000001 4711 12:34 regular file');
      expect(await content(path)).toBe(digest(data));
      expect(told.at(-1)).toBe(3_000_001);
      expect(told).toEqual(told.toSorted((a, b) => a - b));
      expect(await sh('stat -c "%a %u" "$1"', path.slice(0, path.lastIndexOf('/')))).toBe('755 0');
      await nothingLeft();
    });

    it('takes an empty file', async () => {
      const path = `${await newFolder()}/empty`;
      expect(await install(Buffer.alloc(0), path)).toBe('installed');
      expect(await facts(path)).toBe('0 640 0:0 regular empty file');
    });

    it('changes nothing when all is as it should be, and only what is not', async () => {
      const [path, data] = [`${await newFolder()}/f`, randomBytes(1000)];
      await install(data, path);
      const inode = () => sh('stat -c %i "$1"', path);
      const before = await inode();
      expect(await install(data, path, { backup: true })).toBe('unchanged');
      expect(await inode()).toBe(before);
      expect(await sh('ls -A "$(dirname "$1")"', path)).toBe('f');
      expect(await install(data, path, { mode: '600' })).toBe('installed');
      expect(await install(data, path, { mode: '600', owner: '1:1' })).toBe('installed');
      expect(await facts(path)).toMatch(/ 600 1:1 /);
      await nothingLeft();
    });

    it('does the same under the same id only once, and tells its end again', async () => {
      const [path, data, id] = [`${await newFolder()}/f`, randomBytes(1000), randomUUID()];
      expect(await install(data, path, { id })).toBe('installed');
      await sh('rm "$1"', path);
      sentTo.length = 0;
      expect(await install(data, path, { id })).toBe('installed');
      expect(sentTo).toEqual([]);
      expect(await sh('ls "$1"', path)).toMatch(/No such file/);
    });

    it('goes on where another worker has left off', async () => {
      const [path, data, id] = [`${await newFolder()}/f`, randomBytes(12_000_000), randomUUID()];
      const worker = new AbortController();
      const dying = install(data, path, {
        id,
        options: {
          stop: worker.signal,
          progress: (bytes) => bytes > 4_000_000 && worker.abort(new Error('died')),
        },
      });
      await expect(dying).rejects.toThrow('died');
      sentTo.length = 0;
      expect(await install(data, path, { id })).toBe('installed');
      expect(sentTo[0]).toBeGreaterThan(4_000_000);
      expect(await content(path)).toBe(digest(data));
      await nothingLeft();
    });

    it('keeps what it replaces on request, and replaces a program that runs', async () => {
      const folder = await newFolder();
      const path = `${folder}/program`;
      const gate = `${folder}/gate`;
      const [before, after] = ['before', 'after'].map((word) =>
        Buffer.from(`#!/bin/sh\nread go <"$1"\necho ${word} >"$1.said"\n`),
      );
      await install(before!, path, { mode: '755' });
      await sh('mkfifo "$2"; setsid "$1" "$2" >/dev/null 2>&1 </dev/null &', path, gate);
      expect(await install(after!, path, { mode: '755', backup: true })).toBe('installed');
      expect(await content(path)).toBe(digest(after!));
      expect(await content(`${path}.longhaul-backup`)).toBe(digest(before!));
      await sh('echo go >"$1"', gate);
      expect(await eventually(() => sh('cat "$1.said"', gate))).toBe('before');

      const binary = `${folder}/binary`;
      await sh('cp /bin/sleep "$1"; setsid "$1" 600 >/dev/null 2>&1 </dev/null & echo $!', binary);
      expect(await install(after!, binary, { mode: '755', backup: true })).toBe('installed');
      expect(await sh('"$1".longhaul-backup 0 && echo runs', binary)).toBe('runs');
      expect(
        await sh('pkill -f "$1 600" || busybox pkill -f "$1 600"; ls -A "$2" | sort', binary, folder),
      ).toBe('binary\nbinary.longhaul-backup\ngate\ngate.said\nprogram\nprogram.longhaul-backup');
    });

    it('replaces a link and not what it leads to', async () => {
      const folder = await newFolder();
      const data = randomBytes(100);
      await sh('cd "$1"; echo old >real; ln -s real link; ln -s nowhere dangling', folder);
      for (const link of ['link', 'dangling'])
        await install(data, `${folder}/${link}`, { backup: link === 'link' });
      expect(await sh('cd "$1"; cat real; readlink link.longhaul-backup; ls -A', folder)).toBe(
        'old\nreal\ndangling\nlink\nlink.longhaul-backup\nreal',
      );
      expect(await facts(`${folder}/link`)).toBe('100 640 0:0 regular file');
    });

    it.each([
      '/proc/new',
      '/sys/kernel/x',
      '/dev/shm/x',
      '/boot/a/b/c',
      '/run/longhaul/epoch',
      '/var/lib/longhaul/files/x',
      '/etc/shadow',
      '/etc/passwd-',
      '/etc/sudoers.d/x',
      '/etc/ssh/ssh_host_x_key',
      '/root/.ssh/authorized_keys',
      '/tmp/out/shadow',
      '/tmp/out/ssh/ssh_host_x_key',
      '/tmp/root/boot/x',
      '/tmp/link-to-shadow',
      '/proc/self/root/etc/shadow',
      '/proc/1/root/etc/gshadow',
    ])('denies %s', async (path) => {
      await sh('ln -sfn /etc /tmp/out; ln -sfn / /tmp/root; ln -sfn /etc/shadow /tmp/link-to-shadow');
      await expect(install(Buffer.from('x'), path)).rejects.toMatchObject({ code: 'path_denied' });
      expect(await sh('ls -d /boot/a /boot/x /root/.ssh')).not.toMatch(/^\//m);
      await nothingLeft();
    });

    it('says what is in the way', async () => {
      const folder = await newFolder();
      await sh(
        'cd "$1"; mkdir directory; ln -s directory link; mkfifo fifo; ln -s gone dangling; echo x >file',
        folder,
      );
      const codes = {
        directory: 'path_is_directory',
        link: 'path_is_directory',
        fifo: 'path_not_a_file',
        'file/x': 'path_not_a_directory',
        'file/x/y': 'path_not_a_directory',
        'dangling/x': 'path_not_a_directory',
        [`${'x'.repeat(256)}`]: 'invalid_arguments',
        [`${'x'.repeat(256)}/x`]: 'invalid_arguments',
      };
      for (const [path, code] of Object.entries(codes)) {
        await expect(install(Buffer.from('x'), `${folder}/${path}`)).rejects.toMatchObject({ code });
      }
      for (const owner of ['nobody-of-this-name:root', 'root:nobody-of-this-name']) {
        const install1 = install(Buffer.from('x'), `${folder}/new`, { owner });
        await expect(install1).rejects.toMatchObject({ code: 'invalid_arguments' });
      }
      await sh('mkdir "$1/file.longhaul-backup"', folder);
      const backup = install(Buffer.from('y'), `${folder}/file`, { backup: true });
      await expect(backup).rejects.toMatchObject({ code: 'path_is_directory' });
      expect(await sh('cat "$1/file"', folder)).toBe('x');
      expect(await sh('ls -A "$1" | sort', folder)).toBe(
        'dangling\ndirectory\nfifo\nfile\nfile.longhaul-backup\nlink',
      );
      await nothingLeft();
    });

    it('says that the disk is full, or read-only, and leaves the old file', async () => {
      const folder = await newFolder();
      await sh(
        'cd "$1"; mkdir small fixed; mount -t tmpfs -o size=256k tmpfs small; echo old >small/f; echo old >fixed/f;' +
          'mount --bind fixed fixed; mount -o remount,bind,ro fixed fixed || mount -o remount,bind,ro fixed',
        folder,
      );
      const data = randomBytes(1_000_000);
      const full = install(data, `${folder}/small/f`);
      await expect(full).rejects.toMatchObject({ code: 'guest_out_of_space' });
      for (const path of ['fixed/f', 'fixed/a/b']) {
        await expect(install(data, `${folder}/${path}`)).rejects.toMatchObject({ code: 'guest_read_only' });
      }
      expect(await sh('cd "$1"; cat small/f fixed/f; ls -A small fixed', folder)).toBe(
        'old\nold\nfixed:\nf\n\nsmall:\nf',
      );
      await sh('cd "$1"; umount small fixed', folder);
      await nothingLeft();
    });

    it('finds a wrong byte in the guest, and leaves the old file', async () => {
      const [path, data] = [`${await newFolder()}/f`, randomBytes(100_000)];
      await install(Buffer.from('old'), path);
      for (const wrong of [Buffer.from(data), data.subarray(0, 99_999), Buffer.concat([data, data])]) {
        if (wrong.length === data.length) wrong[5_000]! ^= 1;
        const installing = install(wrong, path, { sha256: digest(data), sizeBytes: data.length });
        await expect(installing).rejects.toMatchObject({ code: 'artifact_sha_mismatch' });
        expect(await sh('cat "$1"', path)).toBe('old');
      }
      await nothingLeft();
    });

    (lacks ? it : it.skip)('names the program that the guest lacks', async () => {
      const tool = await sh('command -v sha256sum');
      await sh('mount --bind /dev/null "$(readlink -f "$1")"', tool);
      const installing = install(Buffer.from('x'), `${await newFolder()}/f`);
      await expect(installing).rejects.toMatchObject({
        code: 'guest_missing_dependency',
        message: expect.stringContaining('sha256sum'),
      });
      await sh('umount "$(readlink -f "$1")"', tool);
    });

    it('leaves the old file when it is cancelled, and nothing when that was before it began', async () => {
      const [path, data] = [`${await newFolder()}/f`, randomBytes(8_000_000)];
      await install(Buffer.from('old'), path);
      const cancel = new AbortController();
      const options = { cancel: cancel.signal, progress: () => cancel.abort() };
      expect(await install(data, path, { options })).toBe('cancelled');
      expect(await install(data, path, { options })).toBe('cancelled');
      expect(await sh('cat "$1"', path)).toBe('old');
      await install(Buffer.from('new'), path);
      await nothingLeft();
    });

    it('is whole or not there when the guest is reset, and starts again by itself', async () => {
      const [path, data, id] = [
        `/var/lib/longhaul-test/${randomUUID()}`,
        randomBytes(8_000_000),
        randomUUID(),
      ];
      let reboot: Promise<void> | undefined;
      const progress = () => void (reboot ??= guest.reboot());
      expect(await install(data, path, { id, options: { progress } })).toBe('installed');
      await reboot;
      expect(await content(path)).toBe(digest(data));
      await nothingLeft();
    });

    const overHttp = serves ? describe : describe.skip;
    overHttp('by download', () => {
      const data = randomBytes(2_000_000);
      const secret = 'signature-that-nobody-sees';
      const at = (file: string) => `http://127.0.0.1:8079/${file}?${secret}`;

      beforeAll(async () => {
        await sh('ip link set lo up; mkdir -p /tmp/www; busybox httpd -p 127.0.0.1:8079 -h /tmp/www');
        await install(data, '/tmp/www/good', { mode: '644' });
        await install(data.subarray(1), '/tmp/www/bad', { mode: '644' });
        sentTo.length = 0;
      });

      it('lets the guest fetch the file itself, and pushes nothing', async () => {
        const path = `${await newFolder()}/f`;
        expect(await install(data, path, { url: at('good') })).toBe('installed');
        expect(await content(path)).toBe(digest(data));
        expect(sentTo).toEqual([]);
        await nothingLeft();
      });

      it('finds a wrong file in the guest', async () => {
        const path = `${await newFolder()}/f`;
        const more = { url: at('bad'), sizeBytes: data.length, sha256: digest(data) };
        await expect(install(data, path, more)).rejects.toMatchObject({ code: 'artifact_sha_mismatch' });
        expect(sentTo).toEqual([]);
      });

      it.each([
        ['there is no such file', at('absent')],
        ['nobody answers', 'http://127.0.0.1:8078/x'],
        ['there is no such name', 'http://x.invalid/'],
        ['it is no web address', 'file:///etc/hostname'],
        ['it would end the line', 'http://127.0.0.1:1/"\noutput = "/tmp/hacked'],
      ])('pushes it when %s', async (_what, url) => {
        sentTo.length = 0;
        const path = `${await newFolder()}/f`;
        expect(await install(data, path, { url })).toBe('installed');
        expect(sentTo.length).toBeGreaterThan(0);
        expect(await content(path)).toBe(digest(data));
        expect(await sh('ls /tmp/hacked')).toMatch(/No such/);
      });

      (lacks ? it : it.skip)('pushes it when the guest has no curl', async () => {
        await sh('mount --bind /dev/null /usr/bin/curl');
        sentTo.length = 0;
        const path = `${await newFolder()}/f`;
        expect(await install(data, path, { url: at('good') })).toBe('installed');
        expect(sentTo.length).toBeGreaterThan(0);
        await sh('umount /usr/bin/curl');
      });

      it('says that the disk is full', async () => {
        const folder = await newFolder();
        await sh('mount -t tmpfs -o size=256k tmpfs "$1"', folder);
        const full = install(data, `${folder}/f`, { url: at('good') });
        await expect(full).rejects.toMatchObject({ code: 'guest_out_of_space' });
        await sh('umount "$1"', folder);
      });

      it('never shows the address to others in the guest', async () => {
        const folder = await newFolder();
        // Stalls, so that there is something to look at.
        await sh('mkfifo /tmp/www/slow 2>/dev/null; true');
        const cancel = new AbortController();
        const installing = install(data, `${folder}/f`, {
          url: at('slow'),
          options: { cancel: cancel.signal },
        });
        const seen = await eventually(async () => {
          const text = await sh('cat /proc/[0-9]*/cmdline | tr "\\0" " "');
          return text.includes('curl -q') && text;
        });
        expect(seen).not.toContain(secret);
        expect(await sh('stat -c %a /run/longhaul/files/*.url /run/longhaul/files')).toBe('600\n700');
        cancel.abort();
        expect(await installing).toBe('cancelled');
        await nothingLeft();
      });
    });
  });
}
