import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { request, type IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { setSwitch, type Caller } from '@longhaul/access';
import type { Upload } from '@longhaul/artifacts';
import type { Artifact, Vm } from '@longhaul/persistence';
import { testArtifacts, type TestArtifacts } from '../../../test/support/artifacts.js';
import { makeUser, makeVm, testDatabase, type TestDatabase } from '../../../test/support/database.js';
import { eventually } from '../../../test/support/eventually.js';
import { startTestApi } from '../../../test/support/mcp.js';
import type { ApiServer } from '../server.js';

let test: TestDatabase;
let api: ApiServer;
let directory: string;
let here: TestArtifacts;
let caller: Caller;
let vm: Vm;

beforeAll(async () => {
  test = await testDatabase();
  directory = mkdtempSync(join(tmpdir(), 'artifacts-'));
  api = await startTestApi(test.url, { ARTIFACTS_DIRECTORY: directory });
  here = testArtifacts(test, directory);
  here.urls.origin = `http://127.0.0.1:${api.port}`;
});
beforeEach(async () => {
  ({ caller } = await makeUser(test.db));
  vm = await makeVm(test.db, caller);
});
afterAll(async () => {
  await api.close();
  await test.drop();
  rmSync(directory, { recursive: true });
});

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest();
const left = (id: string) => readdirSync(directory).filter((name) => name.startsWith(id));
const row = ({ id }: Artifact) => test.db.artifact.findUniqueOrThrow({ where: { id } });

async function announced(bytes: Buffer, values: Partial<Artifact> = {}): Promise<[Artifact, Upload]> {
  const announced = {
    filename: 'a.bin',
    purpose: 'file' as const,
    sizeBytes: bytes.length,
    sha256: sha256(bytes),
  };
  const { id } = await here.artifacts.announce(vm, caller.userId, announced);
  const artifact = await test.db.artifact.update({ where: { id }, data: values });
  return [artifact, await here.store.uploadUrl(artifact)];
}

interface Told {
  status: number;
  code?: string;
  response: IncomingMessage;
}

async function put(url: string, headers: Record<string, string>, body: Buffer): Promise<Told> {
  const outgoing = request(url, { method: 'PUT', headers, agent: false });
  outgoing.end(body);
  const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
  const said = await text(response);
  return { status: response.statusCode!, code: said ? (JSON.parse(said) as Told).code : undefined, response };
}

const events = (event: string) =>
  test.db.auditEvent.findMany({ where: { event, vmId: vm.id }, orderBy: { id: 'asc' } });

it.each([0, 1, 70_000, 3_000_001])('takes a file of %d bytes, and gives it back', async (size) => {
  const bytes = randomBytes(size);
  const [artifact, { url, headers }] = await announced(bytes);
  expect((await put(url, headers, bytes)).status).toBe(204);
  expect(left(artifact.id)).toEqual([artifact.id]);
  const stored = await row(artifact);
  expect(stored.uploadedAt).toBeTruthy();

  const download = (await here.store.downloadUrl(stored, 60, here.urls.origin))!;
  const all = await fetch(download);
  expect(all.headers.get('content-type')).toBe('application/octet-stream');
  expect(Buffer.from(await all.arrayBuffer()).equals(bytes)).toBe(true);
  expect(await events('artifact.upload')).toMatchObject([
    { result: 'ok', userId: caller.userId, projectId: vm.projectId, arguments: { artifact_id: artifact.id } },
  ]);
  expect(await events('artifact.download')).toMatchObject([{ result: 'ok', userId: caller.userId }]);
});

it('gives ranges', async () => {
  const bytes = randomBytes(1000);
  const [artifact, { url, headers }] = await announced(bytes);
  await put(url, headers, bytes);
  const download = (await here.store.downloadUrl(await row(artifact), 60, here.urls.origin))!;
  const part = async (range: string) => {
    const response = await fetch(download, { headers: { range } });
    const body = Buffer.from(await response.arrayBuffer());
    return [
      response.status,
      response.headers.get('content-range'),
      body.equals(bytes) ? 'all' : body,
    ] as const;
  };
  expect(await part('bytes=0-9')).toEqual([206, 'bytes 0-9/1000', bytes.subarray(0, 10)]);
  expect(await part('bytes=990-')).toEqual([206, 'bytes 990-999/1000', bytes.subarray(990)]);
  expect(await part('bytes=-5')).toEqual([206, 'bytes 995-999/1000', bytes.subarray(995)]);
  expect(await part('bytes=900-5000')).toEqual([206, 'bytes 900-999/1000', bytes.subarray(900)]);
  expect(await part('bytes=1000-')).toEqual([416, 'bytes */1000', Buffer.alloc(0)]);
  expect(await part('bytes=-0')).toEqual([416, 'bytes */1000', Buffer.alloc(0)]);
  for (const range of ['bytes=9-1', 'bytes=0-1,5-6', 'lines=1-2', 'bytes=', 'bytes=-', 'bytes=a-'])
    expect(await part(range)).toEqual([200, null, 'all']);
});

const bytes = randomBytes(5_000);

describe('refuses', () => {
  type Request = { url: string; headers: Record<string, string>; body: Buffer };
  const CASES: Record<string, [code: string, status: number, change: (of: Request) => Partial<Request>]> = {
    'a byte less': [
      'artifact_size_mismatch',
      409,
      ({ headers, body }) => ({ body: body.subarray(1), headers: { ...headers, 'content-length': '4999' } }),
    ],
    'a byte more': [
      'artifact_size_mismatch',
      409,
      ({ headers }) => ({ body: Buffer.alloc(5001), headers: { ...headers, 'content-length': '5001' } }),
    ],
    'a length that is not said': [
      'artifact_size_mismatch',
      409,
      () => ({ headers: { 'content-type': 'application/octet-stream', 'transfer-encoding': 'chunked' } }),
    ],
    'another digest': ['artifact_sha_mismatch', 409, () => ({ body: Buffer.alloc(5000) })],
    'another type': [
      'unsupported_media_type',
      415,
      ({ headers }) => ({ headers: { ...headers, 'content-type': 'text/plain' } }),
    ],
    'no type': ['unsupported_media_type', 415, () => ({ headers: { 'content-length': '5000' } })],
    'what is no type': [
      'unsupported_media_type',
      415,
      ({ headers }) => ({ headers: { ...headers, 'content-type': 'nonsense' } }),
    ],
    'an encoding': [
      'unsupported_media_type',
      415,
      ({ headers }) => ({ headers: { ...headers, 'content-encoding': 'gzip' } }),
    ],
    'another signature': [
      'not_found',
      404,
      ({ url }) => ({ url: url.replace(/.$/, (last) => (last === 'A' ? 'E' : 'A')) }),
    ],
    'no signature': ['not_found', 404, ({ url }) => ({ url: url.replace(/&.*/, '') })],
    'a longer time': ['not_found', 404, ({ url }) => ({ url: url.replace(/expires=(\d+)/, 'expires=9$1') })],
    'a time twice': ['not_found', 404, ({ url }) => ({ url: `${url}&expires=1` })],
    'what it does not know': ['not_found', 404, ({ url }) => ({ url: `${url}&x=1` })],
    'another artifact': [
      'not_found',
      404,
      ({ url }) => ({ url: url.replace(/[0-9a-f-]{36}/, '00000000-0000-0000-0000-000000000000') }),
    ],
    'what is no id': [
      'not_found',
      404,
      ({ url }) => ({ url: url.replace(/[0-9a-f-]{36}/, '..%2f..%2fetc%2fpasswd') }),
    ],
  };

  it.each(Object.entries(CASES))('%s', async (_name, [code, status, change]) => {
    const [artifact, { url, headers }] = await announced(bytes);
    const told = { url, headers, body: bytes, ...change({ url, headers, body: bytes }) };
    const answer = await put(told.url, told.headers, told.body);
    expect(answer).toMatchObject({ status, code });
    expect(answer.response.headers['content-type']).toMatch(/^application.problem.json/);
    expect(left(artifact.id)).toEqual([]);
    expect((await row(artifact)).uploadedAt).toBeNull();
    const audited = await events('artifact.upload');
    if (code === 'not_found' || _name === 'what is no type') expect(audited).toEqual([]);
    else expect(audited).toMatchObject([{ result: 'refused', code }]);
    // It was the request, not the artifact.
    expect((await put(url, headers, bytes)).status).toBe(204);
  });

  it('a second upload, and one beside another', async () => {
    const [, { url, headers }] = await announced(bytes);
    const both = await Promise.all([put(url, headers, bytes), put(url, headers, bytes)]);
    expect(both.map(({ status }) => status).sort()).toEqual([204, 409]);
    expect(await put(url, headers, bytes)).toMatchObject({ status: 409, code: 'conflict' });
    expect(await events('artifact.upload')).toHaveLength(3);
  });

  it('what comes too late', async () => {
    const [late, upload] = await announced(bytes, { uploadUntil: new Date(Date.now() - 1000) });
    expect(await put(upload.url, upload.headers, bytes)).toMatchObject({
      status: 409,
      code: 'artifact_expired',
    });
    expect(left(late.id)).toEqual([]);
    const download = (await here.store.downloadUrl(late, -1, here.urls.origin))!;
    expect((await fetch(download)).status).toBe(409);
  });

  it('a download of what is not there, or by an address for uploads', async () => {
    const [artifact, { url, headers }] = await announced(bytes);
    const download = (await here.store.downloadUrl(artifact, 60, here.urls.origin))!;
    expect(await (await fetch(download)).json()).toMatchObject({ code: 'artifact_not_uploaded' });
    await put(url, headers, bytes);
    expect((await fetch(url)).status).toBe(404);
    expect((await fetch(download, { method: 'HEAD' })).status).toBe(404);
    expect((await put(download, headers, bytes)).status).toBe(404);
    expect((await fetch(download, { method: 'DELETE' })).status).toBe(404);
  });

  it('whoever was shut out meanwhile', async () => {
    const [, { url, headers }] = await announced(bytes);
    const { userId } = caller;
    const outcome = async () => (await put(url, headers, bytes)).code;
    await setSwitch(test.db, 'mcp', true, { actor: 'test' });
    expect(await outcome()).toBe('switched_off');
    await test.db.killSwitch.deleteMany();
    await test.db.user.update({ where: { id: userId }, data: { standing: 'flagged' } });
    expect(await outcome()).toBe('vm_state_blocked');
    await test.db.user.update({ where: { id: userId }, data: { standing: 'good' } });
    await test.db.projectMember.updateMany({ where: { userId }, data: { role: 'viewer' } });
    expect(await outcome()).toBe('forbidden_role');
    await test.db.projectMember.deleteMany({ where: { userId } });
    expect(await outcome()).toBe('not_found');
  });
});

it('keeps nothing of an upload that breaks off', async () => {
  const [artifact, { url, headers }] = await announced(bytes);
  const { hostname, port, pathname, search } = new URL(url);
  const socket = connect(Number(port), hostname);
  const head = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.write(`PUT ${pathname}${search} HTTP/1.1\r\nHost: x\r\n${head.join('')}\r\n`);
  socket.write(bytes.subarray(0, 3_000));
  await eventually(() => left(artifact.id).length === 1);
  socket.destroy();
  await eventually(() => left(artifact.id).length === 0);
  await eventually(async () => (await events('artifact.upload')).length === 1);
  expect((await put(url, headers, bytes)).status).toBe(204);
});

it('is served under every host name, as nothing else is', async () => {
  const [, { url, headers }] = await announced(bytes);
  expect((await put(url, { ...headers, host: '10.0.2.100' }, bytes)).status).toBe(204);
  const { response } = await put(
    `http://127.0.0.1:${api.port}/mcp`,
    { host: '10.0.2.100' },
    Buffer.from('{}'),
  );
  expect(response.statusCode).toBe(403);
});
