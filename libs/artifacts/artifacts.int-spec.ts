import { mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import type { Caller } from '@longhaul/access';
import { newId, type Artifact, type Vm } from '@longhaul/persistence';
import { makeArtifact, testArtifacts, type TestArtifacts } from '../../test/support/artifacts.js';
import { makeUser, makeVm, testDatabase, type TestDatabase } from '../../test/support/database.js';
import { collectOrphans, sweepArtifacts } from './sweep.js';

let test: TestDatabase;
let directory: string;
let here: TestArtifacts;
let caller: Caller;
let vm: Vm;
const never = new AbortController().signal;
const past = new Date(Date.now() - 1000);
const text = () => Readable.from([Buffer.from('text')]);

beforeAll(async () => {
  test = await testDatabase();
});
beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'artifacts-'));
  here = testArtifacts(test, directory, { ARTIFACTS_PROJECT_MIB: 1 });
  ({ caller } = await makeUser(test.db));
  vm = await makeVm(test.db, caller);
});
afterEach(() => rmSync(directory, { recursive: true }));
afterAll(() => test.drop());

const make = (values: Partial<Artifact> = {}) => makeArtifact(test, vm, caller.userId, values);

async function stored(values: Partial<Artifact> = {}): Promise<Artifact> {
  const artifact = await make(values);
  await here.store.write(artifact, text());
  return artifact;
}

const announced = { filename: 'a', purpose: 'file' as const, sizeBytes: 4, sha256: new Uint8Array(32) };
const announce = (sizeBytes = 4) => here.artifacts.announce(vm, caller.userId, { ...announced, sizeBytes });

describe('announcing', () => {
  it('is bounded in bytes, those that never come too', async () => {
    await announce(1024 * 1024 - 4);
    await announce(4);
    await expect(announce(1)).rejects.toMatchObject({ code: 'quota_exceeded' });
    await announce(0);
  });

  it('is bounded in number, also for those who come at once', async () => {
    for (let n = 0; n < 95; n++) await make({ uploadedAt: null, sizeBytes: 0n });
    const more = await Promise.allSettled(Array.from({ length: 9 }, () => announce(0)));
    expect(more.filter(({ status }) => status === 'fulfilled')).toHaveLength(5);
    await expect(announce(0)).rejects.toMatchObject({ code: 'rate_limited' });
    // Other projects do not mind.
    const { caller: other } = await makeUser(test.db);
    await here.artifacts.announce(await makeVm(test.db, other), other.userId, announced);
  });

  it('gives room back when the time of one is over', async () => {
    const { id } = await announce(1024 * 1024);
    await test.db.artifact.update({ where: { id }, data: { expiresAt: past } });
    await announce(1024 * 1024);
  });
});

describe('confirming', () => {
  it('notes what a crash kept from being noted', async () => {
    const artifact = await stored({ uploadedAt: null });
    expect((await here.artifacts.confirmUploaded(artifact)).uploadedAt).toBeTruthy();
  });

  it('drops what is not as announced', async () => {
    for (const [bytes, code] of [
      ['texts', 'artifact_size_mismatch'],
      ['tex', 'artifact_size_mismatch'],
      ['txet', 'artifact_sha_mismatch'],
    ] as const) {
      const artifact = await make({ uploadedAt: null });
      mkdirSync(directory, { recursive: true });
      writeFileSync(join(directory, artifact.id), bytes);
      await expect(here.artifacts.confirmUploaded(artifact)).rejects.toMatchObject({ code });
      expect(readdirSync(directory)).toEqual([]);
    }
  });

  it('refuses what has expired or was deleted, and what is not the caller’s', async () => {
    const { artifacts } = here;
    const old = await stored({ expiresAt: past });
    await expect(artifacts.confirmUploaded(old)).rejects.toMatchObject({ code: 'artifact_expired' });
    await expect(artifacts.keep(old)).rejects.toMatchObject({ code: 'artifact_not_found' });
    const gone = await stored({ uploadedAt: null });
    await test.db.artifact.delete({ where: { id: gone.id } });
    await expect(artifacts.confirmUploaded(gone)).rejects.toMatchObject({ code: 'artifact_not_found' });
    const { caller: other } = await makeUser(test.db);
    await expect(artifacts.find(other, old.id)).rejects.toMatchObject({ code: 'artifact_not_found' });
    for (const id of ['', 'x', "' OR 1=1", `${old.id} `])
      await expect(artifacts.find(caller, id)).rejects.toMatchObject({ code: 'artifact_not_found' });
  });
});

describe('writing', () => {
  const write = (chunks: (string | Error)[], signal?: AbortSignal) => async (artifact: Artifact) => {
    async function* body() {
      for (const chunk of chunks) {
        if (chunk instanceof Error) throw chunk;
        yield Buffer.from(chunk);
      }
    }
    return here.store.write(artifact, Readable.from(body()), signal);
  };

  it.each([
    ['too little', write(['te', 'x']), 'artifact_size_mismatch'],
    ['too much', write(['te', 'xt', 's', 'and no end']), 'artifact_size_mismatch'],
    ['something else', write(['txet']), 'artifact_sha_mismatch'],
    ['what breaks off', write(['te', new Error('broken')]), undefined],
    ['what takes too long', write(['te', 'xt'], AbortSignal.abort()), 'ABORT_ERR'],
  ])('leaves nothing of %s', async (_name, attempt, code) => {
    const artifact = await make();
    await expect(attempt(artifact)).rejects.toMatchObject(code ? { code } : { message: 'broken' });
    expect(readdirSync(directory)).toEqual([]);
  });

  it('never replaces what is there', async () => {
    const artifact = await stored();
    await expect(here.store.write(artifact, text())).rejects.toMatchObject({ code: 'conflict' });
    expect(readdirSync(directory)).toEqual([artifact.id]);
  });
});

describe('sweeping', () => {
  it('deletes what has expired or has no VM any more, row and bytes, and nothing else', async () => {
    const other = await makeVm(test.db, caller);
    const kept = await stored();
    await stored({ expiresAt: past });
    await make({ expiresAt: past, uploadedAt: null });
    await stored({ vmId: other.id });
    await test.db.vm.delete({ where: { id: other.id } });
    await sweepArtifacts(test.db, here.artifacts, never);
    expect(readdirSync(directory)).toEqual([kept.id]);
    const left = await test.db.artifact.findMany({ where: { projectId: vm.projectId } });
    expect(left.map(({ id }) => id)).toEqual([kept.id]);
  });

  it('is done by many at once, each artifact by one', async () => {
    for (let n = 0; n < 50; n++) await stored({ expiresAt: past });
    const swept = await Promise.all([1, 2, 3].map(() => sweepArtifacts(test.db, here.artifacts, never)));
    expect(swept.reduce((sum, n) => sum + n)).toBe(50);
    expect(readdirSync(directory)).toEqual([]);
  });

  it('collects what belongs to nothing once it is old, and touches no file of others', async () => {
    const kept = await stored();
    const [orphan, young, part] = [newId(), newId(), `${kept.id}.${newId()}.part`];
    for (const name of [orphan, young, part, 'notes.txt', `${newId()}.txt`])
      writeFileSync(join(directory, name), 'x');
    const old = new Date(Date.now() - 24 * 3_600_000);
    for (const name of readdirSync(directory))
      if (name !== young) utimesSync(join(directory, name), old, old);
    expect(await collectOrphans(test.db, here.artifacts, never)).toBe(2);
    const left = readdirSync(directory);
    expect(left).toEqual(expect.arrayContaining([kept.id, young, 'notes.txt']));
    expect(left).toHaveLength(4);
  });
});
