import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from '../../../test/support/eventually.js';
import { qemuPidsOf } from '../../../test/support/processes.js';
import { describeVmProvider } from '../provider.contract.js';
import { QemuProvider } from '../qemu/qemu-provider.js';
import { TEMPLATE_SHAPE } from '../qemu/template.js';
import { IMAGE_DISK_GB } from '../qemu/machine.js';
import { asUser, ensureSystemUser, makeOwnedDirectory } from '../qemu/programs.js';
import { LibvirtProvider, type LibvirtOptions } from './libvirt-provider.js';

const isRoot = process.getuid?.() === 0;
const user = isRoot ? 'longhaul' : undefined;
const home = mkdtempSync(join(tmpdir(), 'lv-'));
const runtime = join(home, 'run');
const options: LibvirtOptions = {
  uri: `qemu:///session?socket=${runtime}/libvirt/libvirt-sock`,
  home,
  imagesDirectory: process.env.TEST_IMAGES || join(tmpdir(), 'longhaul-images'),
  accelerator: 'auto',
  runAsUser: user,
};
const spec = { ...TEMPLATE_SHAPE, hostname: 'web-1', diskGb: IMAGE_DISK_GB, image: 'default' };
let daemon: ChildProcess | undefined;

/** libvirtd as an unprivileged user, with all of its files below `home`: nothing of the system's libvirt is touched. */
async function prepare() {
  if (user) ensureSystemUser(user);
  chmodSync(home, 0o755);
  const images = new QemuProvider(options);
  for (const image of ['default', 'busybox']) await images.ensureImage(image);
  for (const folder of ['run', 'user']) await makeOwnedDirectory(join(home, folder), user);
  const config = join(home, 'libvirtd.conf');
  writeFileSync(config, `unix_sock_dir = "${runtime}/libvirt"\nlog_outputs = "4:stderr"\n`);
  const [file, ...args] = asUser(user, ['libvirtd', '--config', config]);
  const own = join(home, 'user');
  // Sockets of agents are below the settings, and paths of sockets are short.
  const env = { PATH: process.env.PATH, HOME: own, XDG_CONFIG_HOME: own, XDG_RUNTIME_DIR: runtime };
  daemon = spawn(file!, args, { env, stdio: 'ignore', cwd: '/' });
  await eventually(() => new LibvirtProvider(options).observe(randomUUID()));
  const provider = () => new LibvirtProvider(options);
  return { provider, spec, otherImage: 'busybox', close: async () => {} };
}

afterAll(async () => {
  if (daemon) {
    const ended = once(daemon, 'exit');
    daemon.kill('SIGTERM');
    await ended;
  }
  rmSync(home, { recursive: true, force: true });
});

const isInstalled = ['libvirtd', 'virsh'].every(
  (name) => spawnSync('sh', ['-c', `command -v ${name} || [ -x /usr/sbin/${name} ]`]).status === 0,
);
if (isInstalled) {
  describeVmProvider('libvirt', prepare);
  describe('libvirt domains', dies);
} else
  it.skip('libvirt: not tested here, as that needs the packages libvirt-daemon-driver-qemu and -clients', () => {});

function dies() {
  it('sees a domain that dies by itself, and lets its guest be changed again', async () => {
    const id = randomUUID();
    const provider = new LibvirtProvider(options);
    try {
      await provider.create({ ...spec, id });
      expect(await provider.addresses(id)).toEqual([{ family: 4, address: '10.0.2.15', kind: 'private' }]);
      expect((await provider.metrics(id)).diskBytes).toBe(spec.diskGb * 2 ** 30);
      const input = Buffer.alloc(200_000, 'x');
      const count = { path: 'wc', args: ['-c'], stdin: input };
      const counted = await provider.guest(id).session((guest) => guest.run(count, 30_000));
      expect(counted.stdout.toString().trim()).toBe('200000');
      const [pid] = qemuPidsOf(id, '/usr/bin/qemu-system-x86_64');
      process.kill(pid!, 'SIGKILL');
      await eventually(async () => (await provider.observe(id)).power === 'crashed');
      await expect(provider.guest(id).session((guest) => guest.ping())).rejects.toMatchObject({
        code: 'guest_unreachable',
      });
    } finally {
      await provider.delete(id);
    }
  }, 240_000);
}
