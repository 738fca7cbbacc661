import { randomUUID } from 'node:crypto';
import { chmodSync, mkdtempSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ensureSystemUser } from './programs.js';
import { QemuProvider, type QemuOptions } from './qemu-provider.js';
import { TEMPLATE_SHAPE } from './template.js';

// What boots of a cloud image is tested by hand: test/e2e/cloud-image.hand-spec.ts.
describe('a cloud image whose guest never answers', () => {
  const isRoot = process.getuid?.() === 0;
  const home = mkdtempSync(join(tmpdir(), 'lh-'));
  const disk = join(home, 'nothing.raw');
  const imageCatalog = join(home, 'catalog.yaml');
  const options: QemuOptions = {
    home,
    imagesDirectory: process.env.TEST_IMAGES || join(tmpdir(), 'longhaul-images'),
    imageCatalog,
    accelerator: 'auto',
    ...(isRoot && { runAsUser: 'longhaul' }),
  };
  const provider = new QemuProvider(options);
  const impatient = new QemuProvider({ ...options, bootTimeoutMs: 5_000 });
  const id = randomUUID();
  const disks = () => readdirSync(join(home, 'vms', id)).filter((name) => name.startsWith('disk'));
  const isSilent = expect.objectContaining({ code: 'guest_unreachable' });
  let image = '';

  beforeAll(async () => {
    if (isRoot) ensureSystemUser('longhaul');
    // mkdtemp closes its folders to others; QEMU has to pass through.
    chmodSync(home, 0o755);
    writeFileSync(disk, '');
    truncateSync(disk, 1 << 20);
    const entry = { name: 'silent', title: 'Silent', description: 'Boots nothing.', disk_gb: 1 };
    writeFileSync(imageCatalog, JSON.stringify({ images: [{ ...entry, source: { path: disk } }] }));
    await provider.ensureImage('busybox');
    image = (await provider.ensureImage('silent')).name;
  }, 600_000);
  afterAll(async () => {
    await provider.delete(id);
    for (const name of [image, `${image}.locks`])
      rmSync(join(options.imagesDirectory, name), { recursive: true, force: true });
    rmSync(home, { recursive: true, force: true });
  }, 60_000);

  it('makes creation and start guest_unreachable; the VM is there, and runs', async () => {
    const spec = { ...TEMPLATE_SHAPE, id, hostname: 'silent', diskGb: 1, image: 'silent' };
    await expect(impatient.create(spec)).rejects.toEqual(isSilent);
    await expect(impatient.start(id)).rejects.toEqual(isSilent);
    expect(await provider.observe(id)).toMatchObject({ power: 'running' });
    expect(await provider.list()).toEqual([id]);
  }, 60_000);

  it('is replaced by reinstallation, and replaces by one; nothing stays of the other disk', async () => {
    await provider.reinstall(id, 'busybox', 'first');
    expect(disks()).toHaveLength(1);
    await expect(impatient.reinstall(id, 'silent', 'second')).rejects.toEqual(isSilent);
    expect(disks()).toHaveLength(2);
    expect(
      disks()
        .map((name) => name.replace(/.*\./, '.'))
        .sort(),
    ).toEqual(['.iso', '.qcow2']);
  }, 240_000);

  it('is deleted like any other', async () => {
    await provider.delete(id);
    expect(readdirSync(join(home, 'vms'))).toEqual([]);
  }, 60_000);
});
