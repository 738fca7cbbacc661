import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { jest } from '@jest/globals';
import type { GuestUnderTest } from './channel.contract.js';
import { listGuestDirectory, readGuestFile } from './files.js';

/** What reading files and directories keeps in every Linux guest. */
export function describeFiles(name: string, make: () => Promise<GuestUnderTest>): void {
  jest.setTimeout(90_000);
  describe(`files: ${name}`, () => {
    let guest: GuestUnderTest;
    let folder: string;
    beforeAll(async () => {
      guest = await make();
      await sh(
        'cp -a /etc /run/etc && mount --bind /run/etc /etc && mount -t tmpfs tmpfs /root; echo s >/etc/shadow; mkdir /root/.ssh',
      );
    });
    beforeEach(async () => {
      folder = `/tmp/longhaul ${randomUUID()}`;
      await sh('mkdir "$1"', folder);
    });
    afterAll(() => guest?.stop());

    const sh = async (script: string, ...args: string[]) => {
      const program = { path: 'sh', args: ['-c', script, 'sh', ...args] };
      return (await guest.channel.session((session) => session.run(program, 30_000))).stdout.toString();
    };
    const read = (path: string, offset = 0, maxBytes = 65_536) =>
      guest.channel.session((session) => readGuestFile(session, path, offset, maxBytes));
    const list = (path: string, after?: Buffer, limit = 100) =>
      guest.channel.session((session) => listGuestDirectory(session, path, after, limit));
    const refusal = (work: Promise<unknown>) =>
      work.then(
        () => 'none',
        (error) => error.code,
      );

    it('reads any bytes from any offset, and says how many there are', async () => {
      const path = `${folder}/it's "a" file`;
      const data = randomBytes(300_001);
      await guest.channel.session((session) => session.writeFile(path, data));
      await sh('touch -d @1234567890 "$1"', path);
      for (const [offset, length] of [
        [0, 1],
        [0, 300_001],
        [4_095, 2],
        [4_096, 65_536],
        [123_457, 99_999],
      ] as const) {
        const slice = await read(path, offset, length);
        expect(slice.data.equals(data.subarray(offset, offset + length))).toBe(true);
        expect(slice).toMatchObject({ sizeBytes: 300_001, modifiedAt: new Date(1_234_567_890_000) });
      }
      expect((await read(path, 300_000, 10)).data).toHaveLength(1);
      for (const offset of [300_001, 2 ** 40]) expect((await read(path, offset, 10)).data).toHaveLength(0);
      await sh('ln -s "$1" "$2/link"', path, folder);
      expect((await read(`${folder}/link`)).sizeBytes).toBe(300_001);
    });

    it('reads a file with a hole of 1 TB at its end, at once', async () => {
      await sh('truncate -s 1099511627776 "$1/sparse"', folder);
      const { data, sizeBytes } = await read(`${folder}/sparse`, 2 ** 40 - 10, 100);
      expect([data, sizeBytes]).toEqual([Buffer.alloc(10), 2 ** 40]);
    });

    it('never waits for what is no regular file', async () => {
      await sh(
        'cd "$1"; mkfifo fifo; : >device; mount --bind /dev/zero device; ln -s fifo link; ln -s loop loop; ln -s gone dangling',
        folder,
      );
      for (const path of ['fifo', 'link', 'device'])
        expect(await refusal(read(`${folder}/${path}`))).toBe('path_not_a_file');
      for (const path of ['loop', 'dangling', 'absent', 'fifo/x'])
        expect(await refusal(read(`${folder}/${path}`))).toBe('path_not_found');
      expect(await refusal(read(folder))).toBe('path_is_directory');
      expect(await refusal(list(`${folder}/fifo`))).toBe('path_not_a_directory');
      expect(await refusal(list(`${folder}/absent`))).toBe('path_not_found');
    });

    it('shows no secrets, whatever they are called', async () => {
      await sh(
        `cd "$1"; ln -s /etc/shadow link; ln -s /etc folder; ln -s /proc proc; cp /etc/shadow copy; ln /etc/shadow hard
        mkdir -p home/.ssh home/.aws; echo x >home/.ssh/config; echo x >home/.aws/credentials; echo x >site.key
        printf -- '-----BEGIN OPENSSH %s-----\\n' 'PRIVATE KEY' >innocent`,
        folder,
      );
      const secret = [
        '/etc/shadow',
        '/etc/../etc/shadow-',
        '/proc/1/environ',
        '/proc/self/root/etc/shadow',
        '/proc/kmsg',
        '/sys/kernel/notes',
        ...['link', 'folder/shadow', 'proc/cpuinfo', 'home/.ssh/config', 'home/.aws/credentials'].map(
          (path) => `${folder}/${path}`,
        ),
        ...['site.key', 'innocent'].map((path) => `${folder}/${path}`),
      ];
      for (const path of secret) expect([path, await refusal(read(path))]).toEqual([path, 'path_denied']);
      for (const path of [
        '/proc',
        '/sys/kernel',
        '/dev',
        '/root/.ssh',
        `${folder}/proc`,
        `${folder}/home/.ssh`,
      ])
        expect([path, await refusal(list(path))]).toEqual([path, 'path_denied']);
      // A copy cannot be told from any other file; a second name for the same one can, where there may be one.
      expect(await refusal(read(`${folder}/copy`))).toBe('none');
      expect(await refusal(read(`${folder}/hard`))).toMatch(/path_denied|path_not_found/);
    });

    it('knows a secret under a second name', async () => {
      await sh('ln /etc/shadow /etc/innocent');
      expect(await refusal(read('/etc/innocent'))).toBe('path_denied');
    });

    it('lists what there is, whatever its name', async () => {
      await sh(
        `cd "$1"; echo 12345 >file; chown 12:34 file; chmod 4750 file; touch -d @1234567890 file; mkdir .folder; mkfifo -- -fifo
        : >dev; mount --bind /dev/null dev; ln -s 'to
 -> there' "li
nk"; ln -s x "quote ' -> \\""; ln -s "$(printf '\\377')" "$(printf '\\201\\210\\377')"; : >"$(printf 'tab\\there')"; : >"back\\\\0slash"
        : >"$(printf '%0255d' 1)"`,
        folder,
      );
      const { entries, next } = await list(folder);
      expect(next).toBeUndefined();
      const latin = entries.map(({ name, target, ...rest }) => ({
        name: name.toString('latin1'),
        target: target?.toString('latin1'),
        ...rest,
      }));
      expect(latin.map(({ name }) => name)).toEqual([
        '-fifo',
        '.folder',
        `${'0'.repeat(254)}1`,
        'back\\0slash',
        'dev',
        'file',
        'li\nnk',
        `quote ' -> "`,
        'tab\there',
        '\x81\x88\xff',
      ]);
      const byName = new Map(latin.map((entry) => [entry.name, entry]));
      expect(byName.get('file')).toEqual({
        name: 'file',
        type: 'file',
        sizeBytes: 6,
        mode: '4750',
        owner: expect.stringMatching(/:/),
        modifiedAt: new Date(1_234_567_890_000),
      });
      expect(latin.map(({ type }) => type)).toEqual([
        'fifo',
        'directory',
        'file',
        'file',
        'device',
        'file',
        'symlink',
        'symlink',
        'file',
        'symlink',
      ]);
      expect(byName.get('li\nnk')?.target).toBe('to\n -> there');
      expect(byName.get(`quote ' -> "`)?.target).toBe('x');
      expect(byName.get('\x81\x88\xff')?.target).toBe('\xff');
      expect(byName.get('.folder')?.owner).toBe('root:root');
    });

    it('lists an empty directory, and the root', async () => {
      expect(await list(folder)).toEqual({ entries: [], next: undefined });
      expect((await list('/')).entries.map(({ name }) => String(name))).toEqual(
        expect.arrayContaining(['etc', 'tmp', 'usr']),
      );
    });

    it('lists many by and by, each once, and is bounded by what it prints', async () => {
      await sh('cd "$1"; seq 10000 14999 | xargs touch', folder);
      const seen: string[] = [];
      for (let after: Buffer | undefined, page = 0; page < 100; page++) {
        const { entries, next } = await list(folder, after, 200);
        seen.push(...entries.map(({ name }) => String(name)));
        if (!next) break;
        after = next;
      }
      expect(createHash('sha1').update(seen.join()).digest('hex')).toBe(
        createHash('sha1')
          .update(Array.from({ length: 5000 }, (_, n) => n + 10_000).join())
          .digest('hex'),
      );
      await sh(
        'cd "$1"; rm *; target=$(printf "%04000d" 1); for i in $(seq 250); do ln -s "$target" "link $i"; done',
        folder,
      );
      const first = await list(folder, undefined, 200);
      expect(first.entries.length).toBeGreaterThan(100);
      expect(first.entries.length).toBeLessThan(200);
      const rest = await list(folder, first.next, 200);
      expect(first.entries.length + rest.entries.length).toBe(250);
    });

    it('lists while names come and go', async () => {
      await sh(
        'cd "$1"; touch go keep; setsid sh -c "while [ -e go ]; do touch a b c; rm a b c; done" >/dev/null 2>&1 </dev/null &',
        folder,
      );
      for (let time = 0; time < 20; time++) {
        const names = (await list(folder)).entries.map(({ name }) => String(name));
        expect(names).toEqual(expect.arrayContaining(['go', 'keep']));
      }
      await sh('rm "$1/go"', folder);
    });
  });
}
