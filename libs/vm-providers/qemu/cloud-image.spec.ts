import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ensureCloudImage, nameOfCloudImage } from './cloud-image.js';
import { run } from './programs.js';
import { makeSeed } from './seed.js';

describe('cloud images', () => {
  const home = mkdtempSync(join(tmpdir(), 'lh-'));
  const at = (name: string) => join(home, name);
  const sha512 = (path: string) => createHash('sha512').update(readFileSync(path)).digest('hex');
  const ensure = (name: string, source: Parameters<typeof ensureCloudImage>[1]) =>
    ensureCloudImage(at(name), source, () => {});
  const contents = async (name: string) => {
    await run(['qemu-img', 'convert', '-O', 'raw', join(at(name), 'root.qcow2'), at(`${name}.raw`)]);
    return readFileSync(at(`${name}.raw`))
      .subarray(0, 6)
      .toString();
  };

  beforeAll(async () => {
    writeFileSync(at('disk.raw'), `system${'\0'.repeat((1 << 20) - 6)}`);
    await run(['qemu-img', 'convert', '-f', 'raw', '-O', 'qcow2', at('disk.raw'), at('disk.qcow2')]);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  });
  afterAll(() => {
    server.close().closeAllConnections();
    rmSync(home, { recursive: true, force: true });
  });

  let requests = 0;
  const server = createServer((request, response) => {
    requests += 1;
    response.end(readFileSync(at(request.url!.slice(1))));
  });
  const served = (file: string) => ({
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/${file}`,
    sha512: sha512(at(file)),
  });

  it('are fetched once, by however many ask at the same time', async () => {
    const source = served('disk.qcow2');
    expect(await nameOfCloudImage(source)).toBe(`cloud-${source.sha512.slice(0, 16)}`);
    await Promise.all([ensure('fetched', source), ensure('fetched', source), ensure('fetched', source)]);
    await ensure('fetched', source);
    expect(requests).toBe(1);
    expect(await contents('fetched')).toBe('system');
    expect(existsSync(at('fetched.fetched'))).toBe(false);
  });

  it.each(['disk.raw', 'disk.qcow2'])('are copied from a file, %s', async (file) => {
    const source = { path: at(file), sha512: sha512(at(file)) };
    await ensure(`copy-of-${file}`, source);
    expect(await contents(`copy-of-${file}`)).toBe('system');
    expect(existsSync(at(file))).toBe(true);
  });

  it('without a digest are another one after each change of the file', async () => {
    const before = await nameOfCloudImage({ path: at('disk.raw') });
    expect(await nameOfCloudImage({ path: at('disk.raw') })).toBe(before);
    await run(['touch', '-d', '@1', at('disk.raw')]);
    expect(await nameOfCloudImage({ path: at('disk.raw') })).not.toBe(before);
  });

  it('that are missing, other ones, or lie on other files are refused', async () => {
    const secret = at('disk.raw');
    await run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', secret, at('overlay.qcow2')]);
    const data = `data_file=${at('data.raw')},data_file_raw=on`;
    await run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-o', data, at('outside.qcow2'), '1M']);
    await run(['qemu-img', 'create', '-q', '-f', 'vmdk', at('disk.vmdk'), '1M']);
    writeFileSync(at('broken.qcow2'), readFileSync(at('disk.qcow2')).subarray(0, 50));
    for (const source of [
      { path: at('overlay.qcow2') },
      { path: at('outside.qcow2') },
      { path: at('disk.vmdk') },
      { path: at('broken.qcow2') },
      { path: at('nothing.qcow2') },
      { path: at('disk.qcow2'), sha512: '0'.repeat(128) },
      served('disk.vmdk'),
    ]) {
      await expect(ensure('refused', source)).rejects.toMatchObject({ code: 'unavailable' });
      for (const rest of ['refused', 'refused.fetched', 'refused.building'])
        expect(existsSync(at(rest))).toBe(false);
    }
  });

  it('learn their name and the agent from a seed that cloud-init finds by its label', async () => {
    writeFileSync(at('agent.tar.gz'), 'the agent');
    const id = '00000000-0000-4000-8000-000000000001';
    const spec = { id, hostname: 'web-1', cpus: 1, memoryMb: 512, diskGb: 3, image: 'debian-12-cloud' };
    await makeSeed(at('seed.iso'), { spec, agent: at('agent.tar.gz'), user: undefined });
    const listed = await run(['xorriso', '-indev', at('seed.iso'), '-pvd_info', '-find', '/'], 30_000);
    expect(listed).toMatch(/Volume Id *: *cidata/i);
    for (const file of ['meta-data', 'user-data', 'agent.tgz']) expect(listed).toContain(`'/${file}'`);
    const text = readFileSync(at('seed.iso'), 'latin1');
    expect(text).toContain('#cloud-config\n{"hostname":"web-1"');
    expect(text).toContain('"local-hostname":"web-1"');
  });
});
