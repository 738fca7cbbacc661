import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, type AddressInfo, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { Rates, ratesConfig, type Caller } from '@longhaul/access';
import type { Artifact, Vm } from '@longhaul/persistence';
import { setLogLevel } from '@longhaul/telemetry';
import { fastify, type FastifyInstance } from 'fastify';
import { makeArtifact, testArtifacts, type TestArtifacts } from '../../../test/support/artifacts.js';
import { makeUser, makeVm, testDatabase, type TestDatabase } from '../../../test/support/database.js';
import { eventually } from '../../../test/support/eventually.js';
import { installBodyDeadline } from '../body.js';
import { installArtifactRoutes, type ContentLimits } from './routes.js';

// Clients that stall, dribble, or come in numbers, on a server with short limits.

const SIZE = 8_000_000;

let test: TestDatabase;
let directory: string;
let here: TestArtifacts;
let caller: Caller;
let vm: Vm;
let server: FastifyInstance;
const sockets: Socket[] = [];

beforeAll(async () => {
  setLogLevel('silent');
  test = await testDatabase();
  ({ caller } = await makeUser(test.db));
  vm = await makeVm(test.db, caller);
});
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'artifacts-'));
});
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await server.close();
  rmSync(directory, { recursive: true });
});
afterAll(() => test.drop());

async function serve(limits: Partial<ContentLimits>, bodyMs = 60_000): Promise<void> {
  here = testArtifacts(test, directory);
  // Otherwise a connection that is kept alive delays the end of a test by a minute.
  server = fastify({ forceCloseConnections: true });
  installBodyDeadline(server, bodyMs);
  const rates = new Rates(test.db, ratesConfig.parse({}));
  const { artifacts, urls } = here;
  installArtifactRoutes(
    server,
    { artifacts, urls, db: test.db, audit: test.audit, rates },
    {
      idleMs: 60_000,
      totalMs: 60_000,
      uploads: { all: 3, each: 2 },
      downloads: { all: 3, each: 2 },
      ...limits,
    },
  );
  await server.listen({ port: 0, host: '127.0.0.1' });
  urls.origin = `http://127.0.0.1:${(server.server.address() as AddressInfo).port}`;
}

/** A connection on which a request for `url` has begun. */
function begin(method: string, url: string, headers: Record<string, string> = {}): Socket {
  const { port, pathname, search } = new URL(url);
  const socket = connect(Number(port), '127.0.0.1');
  sockets.push(socket);
  socket.on('error', () => undefined);
  const lines = Object.entries({ host: 'x', ...headers }).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.write(`${method} ${pathname}${search} HTTP/1.1\r\n${lines.join('')}\r\n`);
  return socket;
}

async function startUpload(): Promise<{ artifact: Artifact; socket: Socket }> {
  const artifact = await makeArtifact(test, vm, caller.userId, { uploadedAt: null, sizeBytes: BigInt(SIZE) });
  const { url, headers } = await here.store.uploadUrl(artifact);
  const socket = begin('PUT', url, headers);
  socket.write('first');
  return { artifact, socket };
}

const closed = (socket: Socket) => new Promise((resolve) => socket.once('close', resolve));
const files = () => readdirSync(directory);

it('cuts an upload that stalls, and keeps nothing of it', async () => {
  await serve({ idleMs: 300 });
  const { socket } = await startUpload();
  socket.resume();
  await closed(socket);
  await eventually(() => files().length === 0);
});

it('cuts an upload that dribbles without an end', async () => {
  await serve({ totalMs: 1_000, idleMs: 3_600_000 });
  const { socket } = await startUpload();
  socket.resume();
  const dribble = setInterval(() => socket.write('x'), 20);
  await closed(socket).finally(() => clearInterval(dribble));
  await eventually(() => files().length === 0);
});

it('lets an upload go on that the deadline of other bodies would cut', async () => {
  const bodyMs = 5_000;
  await serve({}, bodyMs);
  const startedAt = Date.now();
  const { socket } = await startUpload();
  await eventually(() => files().length === 1);
  let answer = '';
  socket.on('data', (data) => (answer += data));
  await eventually(() => Date.now() > startedAt + bodyMs + 500);
  socket.write(Buffer.alloc(SIZE - 'first'.length));
  await eventually(() => answer.includes('artifact_sha_mismatch'));
});

it('cuts a body that nobody has admitted', async () => {
  await serve({}, 2_000);
  const artifact = await makeArtifact(test, vm, caller.userId, { uploadedAt: null });
  const { url, headers } = await here.store.uploadUrl(artifact);
  const socket = begin('PUT', url.replace('signature=', 'signature=x'), {
    ...headers,
    'content-length': '99999999',
  });
  let answer = '';
  socket.on('data', (data) => (answer += data));
  const dribble = setInterval(() => socket.write('x'), 20);
  await closed(socket).finally(() => clearInterval(dribble));
  expect(answer).toContain('404');
});

it('cuts a download that nobody reads', async () => {
  await serve({ idleMs: 300 });
  const bytes = randomBytes(SIZE);
  const artifact = await makeArtifact(test, vm, caller.userId, {
    sizeBytes: BigInt(SIZE),
    sha256: createHash('sha256').update(bytes).digest(),
  });
  await here.store.write(artifact, Readable.from([bytes]));
  const url = (await here.store.downloadUrl(artifact, 60, here.urls.origin))!;
  const [one, two] = [begin('GET', url), begin('GET', url)];
  for (const socket of [one, two]) await once(socket, 'readable');
  expect((await fetch(url)).status).toBe(429);
  // Their slots come back.
  await eventually(async () => {
    const response = await fetch(url);
    return response.status === 200 && (await response.arrayBuffer()).byteLength === SIZE;
  });
});

it('lets so many upload at once, and no more', async () => {
  await serve({});
  const [first] = [await startUpload(), await startUpload()];
  await eventually(() => files().length === 2);
  const third = await startUpload();
  let answer = '';
  third.socket.on('data', (data) => (answer += data));
  await eventually(() => answer.includes('429'));
  expect(answer).toContain('"code":"rate_limited"');
  first.socket.destroy();
  await eventually(() => files().length === 1);
  await startUpload();
  await eventually(() => files().length === 2);
});
