import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { request, type IncomingMessage } from 'node:http';
import { buffer } from 'node:stream/consumers';
import type { Caller } from '@longhaul/access';
import type { Artifact, Vm } from '@longhaul/persistence';
import { makeUser, makeVm, type TestDatabase } from '../../test/support/database.js';
import { eventually } from '../../test/support/eventually.js';
import type { Artifacts } from './artifacts.js';
import type { Upload } from './store.js';

export interface StoreUnderTest {
  database: TestDatabase;
  /** On the store; what is uploaded to its addresses arrives there. */
  artifacts: Artifacts;
  /** Under which its downloads are served, where the store does not say itself. */
  gateway?: string;
  /** What the server refuses at once; else it shows when the upload is confirmed. */
  refuses: { digest: boolean; second: boolean };
  close(): Promise<void>;
}

/** What every driver does, seen by who uploads, downloads and deletes. */
export function storeContract(name: string, open: () => Promise<StoreUnderTest>): void {
  describe(`${name} as an ArtifactStore`, () => {
    let under: StoreUnderTest;
    let artifacts: Artifacts;
    let caller: Caller;
    let vm: Vm;

    beforeAll(async () => {
      under = await open();
      ({ artifacts } = under);
      ({ caller } = await makeUser(under.database.db));
      vm = await makeVm(under.database.db, caller);
    });
    afterAll(() => under?.close());

    const announce = (bytes: Buffer) =>
      artifacts.announce(vm, caller.userId, {
        filename: 'a.bin',
        purpose: 'file',
        sizeBytes: bytes.length,
        sha256: createHash('sha256').update(bytes).digest(),
      });

    async function announced(bytes: Buffer): Promise<[Artifact, Upload]> {
      const artifact = await announce(bytes);
      return [artifact, await artifacts.store.uploadUrl(artifact)];
    }

    async function uploaded(bytes: Buffer): Promise<Artifact> {
      const [artifact, upload] = await announced(bytes);
      expect(await send(upload, bytes)).toBeLessThan(300);
      return artifact;
    }

    const all = async (id: string, range?: { offset: number; length: number }) =>
      buffer(await artifacts.store.read(id, range));

    it.each([0, 1, 65_536, 2_000_001])('keeps a file of %d bytes', async (size) => {
      const bytes = randomBytes(size);
      const artifact = await uploaded(bytes);
      expect(await artifacts.store.stat(artifact.id)).toMatchObject({ sizeBytes: size });
      expect((await all(artifact.id)).equals(bytes)).toBe(true);
      const confirmed = await artifacts.confirmUploaded(await artifacts.find(caller, artifact.id));
      expect(await artifacts.stateOf(confirmed)).toBe('uploaded');
      const url = (await artifacts.store.downloadUrl(confirmed, 60, under.gateway))!;
      const response = await fetch(url);
      expect(Buffer.from(await response.arrayBuffer()).equals(bytes)).toBe(true);
    });

    it('reads ranges, and lets a reader leave', async () => {
      const bytes = randomBytes(300_000);
      const { id } = await uploaded(bytes);
      expect((await all(id, { offset: 10, length: 5 })).equals(bytes.subarray(10, 15))).toBe(true);
      expect((await all(id, { offset: 299_999, length: 1 })).equals(bytes.subarray(299_999))).toBe(true);
      expect(await all(id, { offset: 7, length: 0 })).toHaveLength(0);
      const stream = await artifacts.store.read(id);
      await once(stream, 'readable');
      stream.destroy();
      await once(stream, 'close');
    });

    it('gives ranges to who downloads', async () => {
      const bytes = randomBytes(1_000);
      const artifact = await artifacts.confirmUploaded(await uploaded(bytes));
      const url = (await artifacts.store.downloadUrl(artifact, 60, under.gateway))!;
      const response = await fetch(url, { headers: { range: 'bytes=100-109' } });
      expect(response.status).toBe(206);
      expect(Buffer.from(await response.arrayBuffer()).equals(bytes.subarray(100, 110))).toBe(true);
    });

    it('has nothing of what was not uploaded, or was deleted', async () => {
      const bytes = randomBytes(10);
      const pending = await announce(bytes);
      expect(await artifacts.store.stat(pending.id)).toBeUndefined();
      await expect(artifacts.store.read(pending.id)).rejects.toMatchObject({ code: 'artifact_not_uploaded' });
      await expect(artifacts.confirmUploaded(pending)).rejects.toMatchObject({
        code: 'artifact_not_uploaded',
      });
      await artifacts.store.delete(pending.id);

      const { id } = await uploaded(bytes);
      await artifacts.store.delete(id);
      await artifacts.store.delete(id);
      expect(await artifacts.store.stat(id)).toBeUndefined();
    });

    const bytes = randomBytes(2_000);
    const CHANGED: Record<string, (upload: Upload) => [Upload, Buffer]> = {
      'a byte less': (upload) => [withHeader(upload, 'content-length', '1999'), bytes.subarray(1)],
      'a byte more': (upload) => [withHeader(upload, 'content-length', '2001'), randomBytes(2_001)],
      'another type': (upload) => [withHeader(upload, 'content-type', 'text/plain'), bytes],
      'another time': (upload) => [{ ...upload, url: upload.url.replace(/(expires=)/i, '$19') }, bytes],
      'another signature': (upload) => [
        {
          ...upload,
          url: upload.url.replace(
            /(signature=)(.)/i,
            (_all, key, first) => key + (first === 'a' ? 'b' : 'a'),
          ),
        },
        bytes,
      ],
      'an id that it was not made for': (upload) => [
        { ...upload, url: upload.url.replace(/[0-9a-f-]{36}/, '00000000-0000-4000-8000-000000000000') },
        bytes,
      ],
    };
    it.each(Object.entries(CHANGED))('refuses %s', async (_name, change) => {
      const [artifact, upload] = await announced(bytes);
      expect(await send(...change(upload))).toBeGreaterThanOrEqual(400);
      expect(await artifacts.store.stat(artifact.id)).toBeUndefined();
    });

    it('refuses what comes after its time', async () => {
      const { id } = await announce(bytes);
      const late = await under.database.db.artifact.update({
        where: { id },
        data: { uploadUntil: new Date(Date.now() + 1_000) },
      });
      const upload = await artifacts.store.uploadUrl(late);
      // Servers count in whole seconds.
      await eventually(() => Date.now() > upload.expiresAt.getTime() + 1_000);
      expect(await send(upload, bytes)).toBeGreaterThanOrEqual(400);
      expect(await artifacts.store.stat(id)).toBeUndefined();
      await expect(artifacts.confirmUploaded(late)).rejects.toMatchObject({ code: 'artifact_expired' });
    });

    it('never lets pass for uploaded what has another digest', async () => {
      const [artifact, upload] = await announced(bytes);
      const status = await send(upload, Buffer.alloc(bytes.length));
      if (under.refuses.digest) {
        expect(status).toBeGreaterThanOrEqual(400);
        expect(await artifacts.store.stat(artifact.id)).toBeUndefined();
      } else {
        await expect(artifacts.confirmUploaded(artifact)).rejects.toMatchObject({
          code: 'artifact_sha_mismatch',
        });
      }
      await expect(artifacts.confirmUploaded(artifact)).rejects.toMatchObject({
        code: 'artifact_not_uploaded',
      });
      expect(await send(upload, bytes)).toBeLessThan(300);
      await artifacts.confirmUploaded(artifact);
    });

    it('takes a file once, or notes that it came', async () => {
      const [artifact, upload] = await announced(bytes);
      expect(await send(upload, bytes)).toBeLessThan(300);
      const again = await send(upload, bytes);
      if (under.refuses.second) expect(again).toBeGreaterThanOrEqual(400);
      // Whoever confirms at once is told the same, and it is audited once.
      await Promise.all([1, 2, 3].map(() => artifacts.confirmUploaded(artifact)));
      const audited = await under.database.db.auditEvent.findMany({
        where: { event: 'artifact.upload', result: 'ok', vmId: vm.id },
      });
      const about = audited.filter(({ arguments: args }) => JSON.stringify(args).includes(artifact.id));
      expect(about).toHaveLength(1);
    });

    it('collects what belongs to nothing, once it is old enough', async () => {
      const [kept, lost] = [await uploaded(bytes), await uploaded(bytes)];
      await under.database.db.artifact.delete({ where: { id: lost.id } });
      const known = (ids: string[]) => artifacts.known(ids);
      const never = new AbortController().signal;
      await artifacts.store.collect(new Date(Date.now() - 3_600_000), known, never);
      expect(await artifacts.store.stat(lost.id)).toBeDefined();
      expect(
        await artifacts.store.collect(new Date(Date.now() + 60_000), known, never),
      ).toBeGreaterThanOrEqual(1);
      expect(await artifacts.store.stat(lost.id)).toBeUndefined();
      expect(await artifacts.store.stat(kept.id)).toBeDefined();
    });
  });
}

const withHeader = (upload: Upload, name: string, value: string): Upload => ({
  ...upload,
  headers: { ...upload.headers, [name]: value },
});

/** The status of the answer. */
async function send({ url, method, headers }: Upload, body: Buffer): Promise<number> {
  const outgoing = request(url, { method, headers, agent: false });
  outgoing.end(body);
  const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
  response.resume();
  await once(response, 'end');
  return response.statusCode!;
}
