import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { eventually } from '../../../test/support/eventually.js';
import { TEMPLATE_SHAPE } from './template.js';
import { IMAGE_DISK_GB } from './machine.js';
import { ensureSystemUser } from './programs.js';
import { QemuProvider } from './qemu-provider.js';

/** What a guest reaches through `guestGateway`: one server on the host's loopback, and nothing beside it. */
describe('the gateway of QEMU guests', () => {
  const isRoot = process.getuid?.() === 0;
  const home = mkdtempSync(join(tmpdir(), 'lh-'));
  const id = randomUUID();
  const blob = randomBytes(24 << 20);
  const server = createServer((request, response) => {
    if (request.url === '/blob') response.end(blob);
    else if (request.url === '/hang') response.flushHeaders();
    else response.writeHead(404).end();
  });
  const secret = createServer((_request, response) => response.end('not for guests'));
  let provider: QemuProvider;

  const sh = (script: string) =>
    provider
      .guest(id)
      .session((guest) => guest.run({ path: '/bin/sh', args: ['-c', script] }, 60_000))
      .then((result) => result.stdout.toString().trim());

  beforeAll(async () => {
    for (const each of [server, secret])
      await new Promise<void>((resolve) => each.listen(0, '127.0.0.1', resolve));
    if (isRoot) {
      ensureSystemUser('longhaul');
      chmodSync(home, 0o755);
    }
    provider = new QemuProvider({
      home,
      imagesDirectory: process.env.TEST_IMAGES || join(tmpdir(), 'longhaul-images'),
      accelerator: 'auto',
      guestGateway: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
      ...(isRoot && { runAsUser: 'longhaul' }),
    });
    await provider.create({
      ...TEMPLATE_SHAPE,
      id,
      hostname: 'web-1',
      diskGb: IMAGE_DISK_GB,
      image: 'default',
    });
  }, 600_000);
  afterAll(async () => {
    await provider?.delete(id);
    for (const each of [server, secret]) each.close().closeAllConnections();
    rmSync(home, { recursive: true, force: true });
  }, 60_000);

  it('brings parallel downloads whole', async () => {
    const url = `${provider.guestApiUrl}/blob`;
    const digest = createHash('sha256').update(blob).digest('hex');
    const sums = await sh(`for n in 1 2; do curl -sS ${url} | sha256sum & done; wait`);
    expect(sums.split('\n').map((line) => line.split(' ')[0])).toEqual([digest, digest]);
  }, 90_000);

  it('leads nowhere else', async () => {
    const { port } = secret.address() as AddressInfo;
    const others = [
      `10.0.2.2:${port}`,
      `10.0.2.100:${port}`,
      `127.0.0.1:${port}`,
      '10.0.2.2:22',
      '10.0.2.3:53',
    ];
    const tries = others.map((to) => `curl -s -o /dev/null -m 5 -w '%{http_code} ' http://${to}/ &`);
    expect(await sh(`${tries.join(' ')} wait`)).toBe('000 000 000 000 000');
  }, 90_000);

  it('opens a bounded number of connections, and more when they are closed', async () => {
    const hanging = 'for n in $(seq 24); do curl -s -o /dev/null http://10.0.2.100/hang & done';
    await sh(`(${hanging}) >/dev/null 2>&1; echo started`);
    const connections = () =>
      new Promise<number>((resolve, reject) =>
        server.getConnections((error, count) => (error ? reject(error) : resolve(count))),
      );
    await eventually(async () => (await connections()) === 16);
    await eventually(async () => (await sh('pgrep -c curl')) === '16');
    expect(await connections()).toBe(16);
    await sh('pkill curl');
    await eventually(async () => (await connections()) === 0);
    expect(await sh("curl -s -o /dev/null -w '%{http_code}' http://10.0.2.100/")).toBe('404');
  }, 120_000);
});
