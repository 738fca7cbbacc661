import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request, type IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Artifact } from '@longhaul/persistence';
import { forkApi, type ApiProcess } from '../../../test/support/api-process.js';
import { testArtifacts, type TestArtifacts } from '../../../test/support/artifacts.js';
import { makeUser, makeVm, testDatabase, type TestDatabase } from '../../../test/support/database.js';

// The API as a process of its own: what it keeps in memory, and what it prints.

const MIB = 1024 * 1024;
/** Far below the size of the file, and above what garbage that waits for its collection takes. */
const MOST_GROWTH_MIB = 100;
const chunk = randomBytes(MIB);

let test: TestDatabase;
let api: ApiProcess;
let directory: string;
let here: TestArtifacts;

beforeAll(async () => {
  test = await testDatabase();
  directory = mkdtempSync(join(tmpdir(), 'artifacts-'));
  api = forkApi(test.url, { ARTIFACTS_DIRECTORY: directory, LOG_LEVEL: 'debug' });
  here = testArtifacts(test, directory);
  here.urls.origin = `http://127.0.0.1:${await api.ready()}`;
});
afterAll(async () => {
  api.child.kill();
  await api.exit;
  await test.drop();
  rmSync(directory, { recursive: true });
});

const statusOf = (field: string) => {
  const [, kib] = new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(
    readFileSync(`/proc/${api.child.pid}/status`, 'utf8'),
  )!;
  return Number(kib) / 1024;
};

/** How far memory rises above what it is now while `act` runs, in MiB. */
async function growthOf(act: () => Promise<void>): Promise<number> {
  writeFileSync(`/proc/${api.child.pid}/clear_refs`, '5');
  const before = statusOf('VmRSS');
  await act();
  return statusOf('VmHWM') - before;
}

async function announced(mebibytes: number): Promise<Artifact> {
  const { caller } = await makeUser(test.db);
  const hash = createHash('sha256');
  for (let n = 0; n < mebibytes; n++) hash.update(chunk);
  return here.artifacts.announce(await makeVm(test.db, caller), caller.userId, {
    filename: 'large.bin',
    purpose: 'file',
    sizeBytes: mebibytes * MIB,
    sha256: hash.digest(),
  });
}

async function upload(artifact: Artifact): Promise<void> {
  const { url, method, headers } = await here.store.uploadUrl(artifact);
  const outgoing = request(url, { method, headers, agent: false });
  const response = once(outgoing, 'response') as Promise<[IncomingMessage]>;
  await pipeline(Readable.from(Array<Buffer>(Number(artifact.sizeBytes) / MIB).fill(chunk)), outgoing);
  const [{ statusCode }] = await response;
  expect(statusCode).toBe(204);
}

async function download({ id }: Artifact): Promise<void> {
  const artifact = await test.db.artifact.findUniqueOrThrow({ where: { id } });
  const response = await fetch((await here.store.downloadUrl(artifact, 60, here.urls.origin))!);
  const hash = createHash('sha256');
  for await (const part of response.body!) hash.update(part);
  expect(hash.digest().equals(artifact.sha256)).toBe(true);
}

it('uploads and downloads 256 MiB in little memory', async () => {
  // The first one loads and compiles what is needed.
  const small = await announced(8);
  await upload(small);
  await download(small);

  const large = await announced(256);
  const up = await growthOf(() => upload(large));
  const down = await growthOf(() => download(large));
  if (process.env.TEST_FIGURES) console.log(`upload +${up.toFixed(1)} MiB, download +${down.toFixed(1)} MiB`);
  expect(up).toBeLessThan(MOST_GROWTH_MIB);
  expect(down).toBeLessThan(MOST_GROWTH_MIB);
});

it('says no signature, neither in its log nor in the audit', async () => {
  const artifact = await announced(1);
  const { url } = await here.store.uploadUrl(artifact);
  const signature = new URL(url).searchParams.get('signature')!;
  for (const address of [url, url.replace('expires=', 'expires=1'), `${url}&x`]) {
    await fetch(address, { method: 'PUT', body: 'short', headers: { 'user-agent': address } });
    await fetch(address);
  }
  await upload(artifact);
  const audited = JSON.stringify(
    await test.db.auditEvent.findMany({ where: { vmId: artifact.vmId } }),
    (_key, value) => (typeof value === 'bigint' ? String(value) : (value as unknown)),
  );
  expect(audited).toContain(artifact.id);
  expect(audited).not.toContain(signature);
  expect(api.output()).not.toContain(signature);
});
