import { randomUUID } from 'node:crypto';
import type { VmProvider, VmSpec } from './provider.js';

/** `provider()` makes a new instance each time, as a worker that has just started would; all see the same VMs. */
export interface ProviderUnderTest {
  provider(): VmProvider;
  /** A spec that the provider can serve, without id. */
  spec: Omit<VmSpec, 'id'>;
  /** An image with another system than the spec's. */
  otherImage: string;
  close(): Promise<void>;
}

/** What every VmProvider keeps. `prepare` may take minutes (images); the tests share one VM, in order. */
export function describeVmProvider(name: string, prepare: () => Promise<ProviderUnderTest>): void {
  describe(`VmProvider: ${name}`, () => {
    const id: string = randomUUID();
    let underTest: ProviderUnderTest;
    let provider: VmProvider;

    beforeAll(async () => {
      underTest = await prepare();
    }, 600_000);
    beforeEach(() => {
      provider = underTest.provider();
    });
    afterAll(async () => {
      await underTest?.provider().delete(id);
      await underTest?.close();
    }, 60_000);

    const sh = async (script: string, vm = id): Promise<string> => {
      const program = { path: '/bin/sh', args: ['-c', script] };
      const result = await provider.guest(vm).session((guest) => guest.run(program, 30_000));
      return result.stdout.toString().trim();
    };
    const power = async (vm = id) => (await provider.observe(vm)).power;

    it('knows nothing of a VM that was never created', async () => {
      expect(await power()).toBe('absent');
      expect(await power('../../etc')).toBe('absent');
      await provider.stop(id);
      await provider.delete(id);
      await expect(provider.start(id)).rejects.toMatchObject({ code: 'vm_not_found' });
      await expect(provider.start('../../etc')).rejects.toMatchObject({ code: 'vm_not_found' });
      for (const call of [
        provider.reinstall(id, underTest.otherImage, 'token'),
        provider.resize(id, { cpus: 1, memoryMb: 512 }),
        provider.growDisk(id, 20),
        provider.rename(id, 'other'),
        provider.addresses(id),
        provider.metrics(id),
      ])
        await expect(call).rejects.toMatchObject({ code: 'vm_not_found' });
      await expect(provider.guest(id).session((guest) => guest.ping())).rejects.toMatchObject({
        code: 'guest_unreachable',
      });
      expect(await provider.list()).not.toContain(id);
    });

    it('refuses a spec that no VM can have', async () => {
      for (const [fault, code] of [
        [{ hostname: 'a b' }, 'invalid_arguments'],
        [{ cpus: 0 }, 'invalid_arguments'],
        [{ memoryMb: 1.5 }, 'invalid_arguments'],
        [{ diskGb: 0 }, 'invalid_arguments'],
        [{ image: '../x' }, 'image_not_found'],
      ] as const) {
        const create = provider.create({ ...underTest.spec, ...fault, id });
        await expect(create).rejects.toMatchObject({ code });
      }
      expect(await power()).toBe('absent');
    });

    it('creates a VM whose guest answers', async () => {
      await provider.create({ ...underTest.spec, id });
      expect(await power()).toBe('running');
      expect(await provider.list()).toContain(id);
      expect(await sh('hostname')).toBe(underTest.spec.hostname);
      const drift = Number(await sh('date +%s')) - Date.now() / 1000;
      expect(Math.abs(drift)).toBeLessThan(5);
    }, 240_000);

    it('changes nothing when create and start are repeated by another worker', async () => {
      await sh('echo still here >/run/mark');
      await provider.create({ ...underTest.spec, id });
      await underTest.provider().start(id);
      expect(await sh('cat /run/mark')).toBe('still here');
    }, 60_000);

    it('suspends and resumes: what ran goes on, on a right clock', async () => {
      await sh('sleep 600 >/dev/null 2>&1 & echo $! >/run/sleeper');
      await provider.suspend(id);
      expect(await power()).toBe('suspended');
      await provider.suspend(id);
      await underTest.provider().start(id);
      expect(await power()).toBe('running');
      expect(await sh('kill -0 "$(cat /run/sleeper)" && cat /run/mark')).toBe('still here');
      const drift = Number(await sh('date +%s')) - Date.now() / 1000;
      expect(Math.abs(drift)).toBeLessThan(5);
    }, 120_000);

    it('resumes only once: a stop in between means a boot', async () => {
      await sh('echo on disk >/root/file; sync');
      await provider.suspend(id);
      await provider.stop(id);
      expect(await power()).toBe('stopped');
      await provider.start(id);
      expect(await sh('cat /run/mark 2>&1; cat /root/file')).toMatch(/No such file.*\non disk$/);
    }, 240_000);

    it('returns from a reset with a new boot', async () => {
      await sh('echo old >/run/mark');
      const bootId = await sh('cat /proc/sys/kernel/random/boot_id');
      await provider.reset(id);
      expect(await sh('cat /proc/sys/kernel/random/boot_id')).not.toBe(bootId);
      expect(await sh('ls /run/mark 2>&1 | grep -c "No such"; hostname')).toBe(
        `1\n${underTest.spec.hostname}`,
      );
    }, 240_000);

    it('shuts down through the guest, and boots again', async () => {
      expect(await provider.shutdown(id, 60_000)).toBe(true);
      expect(await power()).toBe('stopped');
      expect(await provider.shutdown(id, 1_000)).toBe(true);
      await expect(provider.suspend(id)).rejects.toMatchObject({ code: 'vm_state_blocked' });
      await expect(provider.reset(id)).rejects.toMatchObject({ code: 'vm_state_blocked' });
      await provider.start(id);
      expect(await sh('cat /root/file')).toBe('on disk');
    }, 240_000);

    it('says where the VM is reached, and what it uses', async () => {
      const [address] = await provider.addresses(id);
      expect(await sh('ip address show dev eth0')).toContain(` ${address!.address}/`);
      const before = await provider.metrics(id);
      await sh('head -c 20000000 /dev/urandom >/root/random; sync; rm /root/random');
      const after = await provider.metrics(id);
      expect(after.diskWrittenBytes! - before.diskWrittenBytes!).toBeGreaterThanOrEqual(20e6);
      expect(after.memoryBytes).toBe(underTest.spec.memoryMb * 2 ** 20);
      expect(after.diskBytes).toBe(underTest.spec.diskGb * 2 ** 30);
      expect(after.cpuPercent).toBeGreaterThanOrEqual(0);
      expect(after.cpuPercent).toBeLessThanOrEqual(100);
    }, 60_000);

    it('grows a disk while the guest runs, and never shrinks one', async () => {
      const { diskGb } = underTest.spec;
      const size = () => sh('cat /sys/block/vda/size').then((sectors) => Number(sectors) / 2 ** 21);
      await provider.growDisk(id, diskGb + 1);
      await underTest.provider().growDisk(id, diskGb + 1);
      expect(await size()).toBe(diskGb + 1);
      await expect(provider.growDisk(id, diskGb)).rejects.toMatchObject({ code: 'invalid_arguments' });
      expect(await size()).toBe(diskGb + 1);
    }, 60_000);

    it('changes CPUs and memory only while the VM is off', async () => {
      const { cpus, memoryMb, diskGb } = underTest.spec;
      const larger = { cpus: cpus + 1, memoryMb: memoryMb + 256 };
      await provider.resize(id, { cpus, memoryMb });
      await expect(provider.resize(id, larger)).rejects.toMatchObject({ code: 'vm_state_blocked' });
      await provider.stop(id);
      await expect(provider.resize(id, { ...larger, cpus: 0 })).rejects.toMatchObject({
        code: 'invalid_arguments',
      });
      await provider.resize(id, larger);
      await provider.growDisk(id, diskGb + 2);
      expect(await provider.addresses(id)).toEqual([]);
      expect((await provider.metrics(id)).memoryBytes).toBeUndefined();
      await underTest.provider().start(id);
      const seen = await sh('nproc; cat /sys/block/vda/size; cat /root/file');
      expect(seen.split('\n')).toEqual([`${cpus + 1}`, `${(diskGb + 2) * 2 ** 21}`, 'on disk']);
      expect((await provider.metrics(id)).memoryBytes).toBe(larger.memoryMb * 2 ** 20);
    }, 240_000);

    it('reinstalls: another system on a new disk, once for each token', async () => {
      const system = () => sh('. /etc/os-release; echo $ID $VERSION_ID; hostname; ls /root/file 2>&1');
      const before = await system();
      await provider.rename(id, 'renamed');
      expect(await system()).toBe(before);
      await expect(provider.reinstall(id, 'no-such-image', 'first')).rejects.toMatchObject({
        code: 'image_not_found',
      });
      expect(await power()).toBe('running');
      await provider.reinstall(id, underTest.otherImage, 'first');
      const [release, hostname, file] = (await system()).split('\n');
      expect(release).not.toBe(before.split('\n')[0]);
      expect(hostname).toBe('renamed');
      expect(file).toMatch(/No such file/);
      await sh('echo since >/root/since; sync');
      await underTest.provider().reinstall(id, underTest.otherImage, 'first');
      expect(await sh('cat /root/since; cat /sys/block/vda/size')).toBe(
        `since\n${(underTest.spec.diskGb + 2) * 2 ** 21}`,
      );
      await provider.reinstall(id, underTest.spec.image, 'second');
      expect((await system()).split('\n').slice(0, 2)).toEqual([before.split('\n')[0], 'renamed']);
    }, 240_000);

    it('pulls the plug, more than once', async () => {
      await provider.stop(id);
      await underTest.provider().stop(id);
      expect(await power()).toBe('stopped');
    }, 60_000);

    it('deletes all of a VM, more than once', async () => {
      await provider.delete(id);
      await provider.delete(id);
      expect(await power()).toBe('absent');
      expect(await provider.list()).not.toContain(id);
    }, 60_000);

    it('makes each VM different, of the size that was asked for', async () => {
      const identity =
        'hostname; cat /etc/machine-id; cat /sys/class/net/eth0/address; head -c 16 /dev/urandom | od -An -tx1';
      const made: string[][] = [];
      const larger = { diskGb: underTest.spec.diskGb + 3, hostname: 'larger' };
      for (const change of [{}, larger, { cpus: 2, memoryMb: 700, hostname: 'other-size' }]) {
        const vm: string = randomUUID();
        try {
          await provider.create({ ...underTest.spec, ...change, id: vm });
          const size = 'df -BG --output=size / | tail -n 1; nproc; grep MemTotal /proc/meminfo';
          made.push((await sh(`${identity}; ${size}`, vm)).split('\n').map((line) => line.trim()));
        } finally {
          await provider.delete(vm);
        }
      }
      for (let line = 1; line < 4; line++) expect(new Set(made.map((lines) => lines[line])).size).toBe(3);
      expect(made.map((lines) => lines[0])).toEqual([underTest.spec.hostname, 'larger', 'other-size']);
      expect(parseInt(made[1]![4]!) - parseInt(made[0]![4]!)).toBe(3);
      expect(made[2]![5]).toBe('2');
      expect(Number(made[2]![6]!.replace(/\D/g, ''))).toBeLessThan(700 * 1024);
    }, 300_000);
  });
}
