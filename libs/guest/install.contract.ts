import { randomBytes, randomUUID } from 'node:crypto';
import { jest } from '@jest/globals';
import { eventually } from '../../test/support/eventually.js';
import { digest, type Installing, installing } from '../../test/support/installing.js';
import type { GuestChannel } from './channel.js';
import type { CommandGuestUnderTest } from './command.contract.js';
import { describeDownload } from './install-download.contract.js';
import { describeRefusals } from './install-refusals.contract.js';

/**
 * What an installation keeps in every Linux guest. `serves`: it has what it takes to serve itself over HTTP; `lacks`: a
 * single program of it can be taken away.
 */
export function describeInstall(
  name: string,
  make: () => Promise<CommandGuestUnderTest>,
  can: { serves: boolean; lacks: boolean },
): void {
  // An emulated VM is twenty times slower than this host.
  jest.setTimeout(90_000);
  describe(`install: ${name}`, () => {
    const guest = installing(make);
    describePlacing(guest);
    describeRefusals(guest, can);
    if (can.serves) describeDownload(guest, can);
    else it.skip('by download: not tested here, as that needs busybox in the guest', () => {});
  });
}

function describePlacing({
  sh,
  newFolder,
  install,
  sentTo,
  facts,
  content,
  nothingLeft,
  reboot,
}: Installing): void {
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

  it('begins again when what was sent is lost with the agent', async () => {
    const [path, data] = [`${await newFolder()}/f`, randomBytes(1000)];
    let lost = 0;
    const channel = (own: GuestChannel): GuestChannel => ({
      session: (use, options) =>
        own.session((guest) => {
          const spawn = guest.spawn.bind(guest);
          guest.spawn = (program) => (lost++ === 0 ? spawn({ path: 'true' }) : spawn(program));
          return use(guest);
        }, options),
    });
    expect(await install(data, path, { channel })).toBe('installed');
    expect(lost).toBeGreaterThan(1);
    expect(await content(path)).toBe(digest(data));
    await nothingLeft();
  });

  it('is whole or not there when the guest is reset, and starts again by itself', async () => {
    const [path, data, id] = [`/var/lib/longhaul-test/${randomUUID()}`, randomBytes(8_000_000), randomUUID()];
    let rebooted: Promise<void> | undefined;
    const progress = () => void (rebooted ??= reboot());
    expect(await install(data, path, { id, options: { progress } })).toBe('installed');
    await rebooted;
    expect(await content(path)).toBe(digest(data));
    await nothingLeft();
  });
}
