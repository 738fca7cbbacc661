import { randomBytes } from 'node:crypto';
import { digest, type Installing } from '../../test/support/installing.js';

/** What is not installed, why it says, and that nothing has changed then. */
export function describeRefusals(
  { sh, newFolder, install, nothingLeft }: Installing,
  { lacks }: { lacks: boolean },
): void {
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
}
