import { randomBytes } from 'node:crypto';
import { freePort } from '@longhaul/persistence/embedded';
import { eventually } from '../../test/support/eventually.js';
import { digest, type Installing } from '../../test/support/installing.js';

/** How a guest fetches a file from a web server, which it runs itself here, and what it does where it cannot. */
export function describeDownload(
  { sh, newFolder, install, sentTo, content, nothingLeft }: Installing,
  { lacks }: { lacks: boolean },
): void {
  describe('by download', () => {
    const data = randomBytes(2_000_000);
    const secret = 'signature-that-nobody-sees';
    let server: string;
    const at = (file: string) => `http://${server}/${file}?${secret}`;

    beforeAll(async () => {
      // Free on the host, whose loopback device some guests share.
      server = `127.0.0.1:${await freePort()}`;
      await sh('ip link set lo up; mkdir -p /tmp/www; busybox httpd -p "$1" -h /tmp/www', server);
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
      ['there is no such file', () => at('absent')],
      ['nobody answers', () => 'http://127.0.0.1:1/x'],
      ['there is no such name', () => 'http://x.invalid/'],
      ['it is no web address', () => 'file:///etc/hostname'],
      ['it would end the line', () => 'http://127.0.0.1:1/"\noutput = "/tmp/hacked'],
    ])('pushes it when %s', async (_what, url) => {
      sentTo.length = 0;
      const path = `${await newFolder()}/f`;
      expect(await install(data, path, { url: url() })).toBe('installed');
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
}
