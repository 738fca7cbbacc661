import { createHash, randomBytes, randomInt } from 'node:crypto';
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { artifactsConfig, type LogStore } from '@longhaul/artifacts';
import { Jobs, Retention } from '@longhaul/jobs';
import { newId } from '@longhaul/persistence';
import { setLogLevel } from '@longhaul/telemetry';
import { testArtifacts } from '../../test/support/artifacts.js';
import { makeUser, testDatabase, type TestDatabase } from '../../test/support/database.js';
import { eventually } from '../../test/support/eventually.js';
import { HandWorker, NoDelivery } from '../../test/support/hand-worker.js';
import { SWIFT_LACKS, startSwift, swiftEnv } from '../../test/support/swift.js';
import { work } from '../../test/support/work.js';
import { S3Store } from '../artifacts/s3-store.js';
import { JobLog, LogArchive, type LogStream } from './index.js';

const MIB = 1024 * 1024;
const never = new AbortController().signal;
const sha = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');

let test: TestDatabase;
let directory: string;
beforeAll(async () => {
  setLogLevel('silent');
  test = await testDatabase();
  directory = mkdtempSync(join(tmpdir(), 'log-archive-'));
});
afterAll(async () => {
  await test.drop();
  rmSync(directory, { recursive: true, force: true });
});

const disk = (): LogStore => testArtifacts(test, directory).store;

const on = (store: LogStore) => {
  const archive = new LogArchive(test.db, store);
  return { archive, log: new JobLog(test.db, archive) };
};

/** The id of a job that has ended with such output. */
async function ended(streams: Partial<Record<LogStream, Buffer>>): Promise<string> {
  const { caller } = await makeUser(test.db);
  const jobs = new Jobs(test.db, test.audit, new NoDelivery(), test.changes);
  const worker = new HandWorker(test);
  const { id } = await jobs.submit({ kind: work, payload: {}, by: caller, projectId: caller.projectIds[0]! });
  const ref = await worker.claim(id);
  for (const [stream, data] of Object.entries(streams))
    for (let at = 0; at < data.length; at += MIB)
      await worker.write(ref, stream as LogStream, data.subarray(at, at + MIB));
  await worker.finish(ref, { state: 'succeeded' });
  return id;
}

/** Lines as a program writes them, some of them noise. */
function output(bytes: number): Buffer {
  const lines: string[] = [];
  for (let length = 0; length < bytes; length += lines.at(-1)!.length)
    lines.push(
      `${lines.length} ${lines.length % 3 ? 'compiled 12 files €' : randomBytes(300).toString('base64')}\n`,
    );
  return Buffer.from(lines.join('')).subarray(0, bytes);
}

async function readAll(log: JobLog, jobId: string, stream: LogStream): Promise<Buffer> {
  const parts: Buffer[] = [];
  for (let at = 0; ;) {
    const { data } = await log.read(jobId, stream, at, MIB);
    if (data.length === 0) return Buffer.concat(parts);
    parts.push(data);
    at += data.length;
  }
}

const chunks = (jobId: string) => test.db.jobLogChunk.groupBy({ by: 'stream', where: { jobId } });

describe.each([
  ['a folder', undefined],
  ['Swift', SWIFT_LACKS],
] as const)('in %s', (where, lacks) => {
  const archived = lacks ? it.skip : it;
  let store: LogStore;
  let [away, back] = [
    async () => {
      renameSync(directory, `${directory}.away`);
      writeFileSync(directory, 'no folder');
    },
    async () => {
      rmSync(directory);
      renameSync(`${directory}.away`, directory);
    },
  ];
  let close = async () => {};
  beforeAll(async () => {
    if (where === 'a folder') store = disk();
    else if (!lacks) {
      const swift = await startSwift();
      ({ down: away, up: back, stop: close } = swift);
      const config = { ...artifactsConfig.parse(swiftEnv(swift)), LONGHAUL_HOME: '/nowhere' };
      store = S3Store.open(config, testArtifacts(test, '/nowhere').urls, 'logs');
    }
  });
  afterAll(() => close());

  archived('a log is read as before: the same bytes at the same offsets, the same flags', async () => {
    const { archive, log } = on(store);
    // Longer than one object.
    const streams = { stdout: output(20 * MIB + 12_345), stderr: randomBytes(300_001), system: output(100) };
    const jobId = await ended(streams);
    await test.db.jobLogStream.updateMany({ where: { jobId, stream: 'stderr' }, data: { dropped: 7n } });
    const reads = Object.entries(streams).flatMap(([stream, { length }]) =>
      [
        0,
        65_535,
        16 * MIB - 100,
        16 * MIB,
        length - 1,
        length,
        ...Array.from({ length: 30 }, () => randomInt(length)),
      ]
        .filter((at) => at <= length)
        .map((at) => [stream as LogStream, at, randomInt(1, 65_537)] as const),
    );
    const look = () =>
      Promise.all([
        ...reads.map((read) => log.read(jobId, ...read)),
        ...Object.keys(streams).map((stream) => log.tail(jobId, stream as LogStream, 70_000)),
      ]);
    const before = await look();
    expect(await archive.sweep(0, never)).toBe(streams.stdout.length + streams.stderr.length);

    // What is short is not worth an object.
    expect(await chunks(jobId)).toEqual([{ stream: 'system' }]);
    expect(await look()).toEqual(before);
    reads.forEach(([stream, at, max], index) =>
      expect(before[index]!.data.equals(streams[stream].subarray(at, at + max))).toBe(true),
    );
    for (const [stream, data] of Object.entries(streams))
      expect(sha(await readAll(log, jobId, stream as LogStream))).toBe(sha(data));
    expect(await archive.sweep(0, never)).toBe(0);
  });

  archived('whoever reads while it is archived, by two at once, sees the same bytes', async () => {
    const { archive, log } = on(store);
    const data = output(3 * MIB);
    const jobId = await ended({ stdout: data });
    const sweeps = [archive.sweep(0, never), archive.sweep(0, never)];
    let done = false;
    const all = Promise.all(sweeps).finally(() => (done = true));
    let reads = 0;
    do {
      expect(sha(await readAll(log, jobId, 'stdout'))).toBe(sha(data));
      reads++;
    } while (!done);
    const moved = await all;
    expect(moved[0]! + moved[1]!).toBe(data.length);
    expect(reads).toBeGreaterThan(0);
    expect(sha(await readAll(log, jobId, 'stdout'))).toBe(sha(data));
    expect(await test.db.jobLogArchive.count({ where: { jobId } })).toBe(1);
  });

  archived(
    'is not read while the store is away (`unavailable`), nothing moves, and both go on once it is back',
    async () => {
      const { archive, log } = on(store);
      const jobId = await ended({ stdout: output(MIB) });
      await archive.sweep(0, never);
      const waiting = await ended({ stdout: output(MIB) });
      await away();
      await expect(log.read(jobId, 'stdout', 0, 100)).rejects.toMatchObject({ code: 'unavailable' });
      await expect(archive.sweep(0, never)).rejects.toThrow();
      expect(await chunks(waiting)).toEqual([{ stream: 'stdout' }]);
      await back();
      expect((await log.read(jobId, 'stdout', 0, 100)).data).toHaveLength(100);
      expect(await archive.sweep(0, never)).toBe(MIB);
    },
  );
});

const pieceOf = async (jobId: string) =>
  (await test.db.jobLogArchive.findFirstOrThrow({ where: { jobId } })).id;

it('moves nothing of a job that lives or has ended later', async () => {
  const { archive } = on(disk());
  const jobId = await ended({ stdout: output(MIB) });
  expect(await archive.sweep(1, never)).toBe(0);
  await test.db.job.update({ where: { id: jobId }, data: { finishedAt: null } });
  expect(await archive.sweep(0, never)).toBe(0);
});

it('goes on after being stopped, with what is missing', async () => {
  const { archive, log } = on(disk());
  const data = output(17 * MIB);
  const jobId = await ended({ stdout: data });
  const stop = new AbortController();
  const sweep = archive.sweep(0, stop.signal);
  const { jobLogArchive } = test.db;
  await eventually(async () => (await jobLogArchive.count({ where: { jobId } })) > 0);
  stop.abort(new Error('handed over'));
  await sweep.catch((error: unknown) => expect(error).toEqual(new Error('handed over')));
  expect(sha(await readAll(log, jobId, 'stdout'))).toBe(sha(data));
  await archive.sweep(0, never);
  expect(await chunks(jobId)).toEqual([]);
  expect(sha(await readAll(log, jobId, 'stdout'))).toBe(sha(data));
});

it('passes over a log that cannot be archived, and leaves it where it is', async () => {
  const { archive, log } = on(disk());
  const broken = await ended({ stdout: output(MIB) });
  await test.db.jobLogChunk.deleteMany({ where: { jobId: broken, offset: 131_072n } });
  const whole = await ended({ stdout: output(MIB) });
  expect(await archive.sweep(0, never)).toBe(MIB);
  expect(await chunks(whole)).toEqual([]);
  expect((await log.read(broken, 'stdout', 0, 100)).data).toHaveLength(100);
  await test.db.job.delete({ where: { id: broken } });
});

it.each([
  [
    'a byte of it is another',
    (file: string) => {
      const bytes = readFileSync(file);
      bytes[bytes.length - 20]! ^= 1;
      writeFileSync(file, bytes);
    },
  ],
  ['it is too short', (file: string) => writeFileSync(file, readFileSync(file).subarray(0, -1))],
  ['it is gone', (file: string) => rmSync(file)],
])('says that a log is damaged when %s in the store, and answers no wrong byte', async (_what, damage) => {
  const { archive, log } = on(disk());
  const jobId = await ended({ stdout: output(MIB) });
  await archive.sweep(0, never);
  damage(join(directory, await pieceOf(jobId)));
  await expect(log.read(jobId, 'stdout', MIB - 10, 100)).rejects.toMatchObject({ code: 'log_damaged' });
});

it('deletes objects with their job, and those that a crash has left; no other', async () => {
  const { archive, log } = on(disk());
  const kept = await ended({ stdout: output(MIB) });
  const old = await ended({ stdout: output(MIB) });
  await archive.sweep(0, never);
  const [keptPiece, oldPiece] = [await pieceOf(kept), await pieceOf(old)];
  await test.db.$executeRaw`
    UPDATE jobs SET created_at = now() - interval '40 days', finished_at = now() - interval '40 days' WHERE id = ${old}::uuid`;
  await new Retention(test.db, { JOB_RETENTION_DAYS: 30 }).sweep(never, (pieces) => archive.forget(pieces));
  expect(readdirSync(directory)).not.toContain(oldPiece);

  const [orphan, young] = [newId(), newId()];
  for (const id of [orphan, young]) await disk().put(id, Buffer.from('left'));
  const longAgo = new Date(Date.now() - 3 * 3_600_000);
  for (const id of [orphan, keptPiece]) utimesSync(join(directory, id), longAgo, longAgo);
  await archive.collect(never);
  expect(readdirSync(directory)).toEqual(expect.arrayContaining([keptPiece, young]));
  expect(readdirSync(directory)).not.toContain(orphan);
  expect((await log.read(kept, 'stdout', 0, 100)).data).toHaveLength(100);
});
