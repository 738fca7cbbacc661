import { createHash, randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { download, type DownloadOptions } from './index.js';

describe('download', () => {
  const body = randomBytes(3 << 20);
  const sha512 = createHash('sha512').update(body).digest('hex');
  let serve: (request: IncomingMessage, response: ServerResponse, offset: number) => void;
  let asked: (string | undefined)[];
  const server = createServer((request, response) => {
    const { range } = request.headers;
    asked.push(range);
    serve(request, response, Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1] ?? 0));
  });
  let url: string;
  let folder: string;
  let target: string;

  beforeAll(async () => {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/image.qcow2`;
  });
  afterAll(() => void server.close().closeAllConnections());
  beforeEach(() => {
    asked = [];
    folder = mkdtempSync(join(tmpdir(), 'lh-'));
    target = join(folder, 'image');
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  const fetchIt = (more: Partial<DownloadOptions> = {}) => download(target, { url, sha512, ...more });
  const whole = (response: ServerResponse) => response.writeHead(200).end(body);
  const rest = (response: ServerResponse, offset: number, bytes = body) => {
    if (offset === 0) return response.writeHead(200).end(bytes);
    if (offset >= bytes.length) return response.writeHead(416).end();
    const range = `bytes ${offset}-${bytes.length - 1}/${bytes.length}`;
    return response.writeHead(206, { 'content-range': range }).end(bytes.subarray(offset));
  };
  /** Says that all of it comes, sends up to `end` and hangs up. */
  const cut = (response: ServerResponse, offset: number, end: number) => {
    const headers = { 'content-length': body.length - offset, 'content-range': `bytes ${offset}-x/y` };
    response.writeHead(offset > 0 ? 206 : 200, headers);
    response.write(body.subarray(offset, end), () => setImmediate(() => response.destroy()));
  };
  const expectWhole = () => {
    expect(readFileSync(target).equals(body)).toBe(true);
    expect(existsSync(`${target}.part`)).toBe(false);
  };
  const expectNothing = () => {
    expect(existsSync(target)).toBe(false);
    expect(existsSync(`${target}.part`)).toBe(false);
  };

  it('fetches all of a file', async () => {
    serve = (_request, response) => whole(response);
    await fetchIt();
    expectWhole();
  });

  it('goes on where the connection was cut, as often as it brings something', async () => {
    const ends = [500_000, 1_000_000, 1_500_000, 2_000_000, 2_500_000, body.length];
    serve = (_request, response, offset) => cut(response, offset, ends.shift()!);
    serve = ((serveCut) => (request, response, offset) =>
      ends.length > 1 ? serveCut(request, response, offset) : rest(response, offset))(serve);
    await fetchIt();
    expect(asked.length).toBeGreaterThan(5);
    expect(asked.slice(1).every((range) => range?.startsWith('bytes='))).toBe(true);
    expectWhole();
  }, 60_000);

  it('goes on from what an earlier call has left', async () => {
    writeFileSync(`${target}.part`, body.subarray(0, 1_000_000));
    serve = (_request, response, offset) => rest(response, offset);
    await fetchIt();
    expect(asked).toEqual(['bytes=1000000-']);
    expectWhole();
  });

  it('begins anew where the server knows no ranges', async () => {
    writeFileSync(`${target}.part`, body.subarray(0, 1_000_000));
    serve = (_request, response) => whole(response);
    await fetchIt();
    expectWhole();
  });

  it.each([
    ['another file', randomBytes(1_000_000)],
    ['all of it, and more', Buffer.concat([body, body])],
  ])('begins anew where what was left is %s', async (_what, left) => {
    writeFileSync(`${target}.part`, left);
    serve = (_request, response, offset) => rest(response, offset);
    await fetchIt();
    expectWhole();
  });

  it('takes what was left whole without fetching it again', async () => {
    writeFileSync(`${target}.part`, body);
    serve = (_request, response, offset) => rest(response, offset);
    await fetchIt();
    expect(asked).toEqual([`bytes=${body.length}-`]);
    expectWhole();
  });

  it('refuses a file that is another one', async () => {
    const other = randomBytes(1_000);
    serve = (_request, response, offset) => rest(response, offset, other);
    await expect(fetchIt()).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(/SHA-512/),
    });
    expectNothing();
  });

  it('refuses one that is too large, without reading all of it', async () => {
    serve = (_request, response) => {
      const more = (): void => void response.write(body, (error) => error ?? more());
      more();
    };
    await expect(fetchIt({ maxBytes: 5 << 20 })).rejects.toMatchObject({ code: 'unavailable' });
    expect(asked).toHaveLength(1);
  });

  it('refuses another range than it asked for', async () => {
    writeFileSync(`${target}.part`, body.subarray(0, 1_000_000));
    serve = (_request, response) => {
      response
        .writeHead(206, { 'content-range': `bytes 5-${body.length - 1}/${body.length}` })
        .end(body.subarray(5));
    };
    await expect(fetchIt()).rejects.toMatchObject({ code: 'unavailable' });
    expect(existsSync(target)).toBe(false);
  });

  it('takes a final answer for final', async () => {
    serve = (_request, response) => response.writeHead(404).end('no');
    await expect(fetchIt()).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringMatching(/404/),
    });
    expect(asked).toHaveLength(1);
  });

  it.each([
    ['fails again and again', (response: ServerResponse) => void response.writeHead(500).end()],
    ['hangs up', (response: ServerResponse) => void response.destroy()],
    ['says nothing', () => {}],
  ])(
    'gives up on a server that %s',
    async (_what, answer) => {
      serve = (_request, response) => answer(response);
      await expect(fetchIt({ silenceMs: 300 })).rejects.toMatchObject({ code: 'unavailable' });
      expect(asked.length).toBe(4);
      expect(existsSync(target)).toBe(false);
    },
    60_000,
  );
});
