import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Caller } from '@longhaul/access';
import { parseConfig } from '@longhaul/config';
import { BullDelivery, QueueConnection } from '@longhaul/job-queue';
import { Jobs } from '@longhaul/jobs';
import { setLogLevel } from '@longhaul/telemetry';
import { defineHandler } from '@longhaul/toolsets/handler';
import type { INestApplicationContext } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { TEST_SECRETS_KEYS, makeUser, testDatabase, type TestDatabase } from '../../test/support/database.js';
import { eventually } from '../../test/support/eventually.js';
import { work } from '../../test/support/work.js';
import { workerConfig } from './config.js';
import { WorkerModule } from './worker.module.js';

const SUPPORT = join(import.meta.dirname, '../../test/support');
/** As a project has it unless somebody sets it. */
const WINDOW = 50;
const SLOTS = 4;
const BACKLOG = 200;
/** After so many the order has shown. */
const ENOUGH = 120;
const PATIENT = { withinMs: 240_000, everyMs: 100 };

export interface TestQueue {
  url: string;
  empty(): Promise<unknown>;
}

/** What projects may expect of each other's jobs in one queue, with real workers on it. */
export function describeRouting(name: string, openQueue: (test: TestDatabase) => TestQueue) {
  describe(`routing by ${name}`, () => {
    let test: TestDatabase;
    let queue: TestQueue;
    let home: string;
    let env: NodeJS.ProcessEnv;
    let delivery: BullDelivery;
    let jobs: Jobs;
    let worker: INestApplicationContext | undefined;

    /** Ids of jobs in the order in which they were begun. */
    let begun: string[] = [];
    /** How many of a project run, and the most that ever did at once. */
    let running = new Map<string, { now: number; most: number }>();
    let gate: Promise<void>;
    let open = () => {};
    const handler = defineHandler({
      kind: work,
      async run({ job: { id, projectId } }) {
        begun.push(id);
        const count = running.get(projectId) ?? { now: 0, most: 0 };
        running.set(projectId, count);
        count.most = Math.max(count.most, ++count.now);
        await gate;
        count.now--;
        return { state: 'succeeded', result: {} };
      },
    });

    beforeAll(async () => {
      setLogLevel('silent');
      test = await testDatabase();
      queue = openQueue(test);
      home = await mkdtemp(join(tmpdir(), 'routing-'));
      env = {
        DATABASE_URL: test.url,
        QUEUE_URL: queue.url,
        LONGHAUL_HOME: home,
        SECRETS_KEYS: TEST_SECRETS_KEYS,
        // No machine is needed for what these jobs do.
        WORKER_HOSTS: 'none',
        WORKER_BULK_JOBS: String(SLOTS),
        JOB_LEASE_SECONDS: '3',
        LOG_LEVEL: 'silent',
      };
      delivery = new BullDelivery(
        await QueueConnection.open({ DATABASE_URL: test.url, QUEUE_URL: queue.url }),
      );
      await delivery.onModuleInit();
      jobs = new Jobs(test.db, test.audit, delivery, test.changes);
    });
    afterAll(async () => {
      await delivery.onApplicationShutdown();
      await test.drop();
      await rm(home, { recursive: true });
    });
    beforeEach(() => {
      begun = [];
      running = new Map();
      gate = new Promise((resolve) => (open = resolve));
    });
    afterEach(async () => {
      open();
      await worker?.close();
      worker = undefined;
      // What a test has left in the queue then finds nothing to begin.
      await test.db.$executeRaw`TRUNCATE jobs CASCADE`;
    });

    async function startHere(slots = SLOTS): Promise<void> {
      const config = parseConfig(workerConfig, { ...env, WORKER_BULK_JOBS: String(slots) });
      worker = await NestFactory.createApplicationContext(WorkerModule.with(config, [handler]), {
        logger: false,
      });
    }
    async function makeProject(values: { concurrency?: number } = {}): Promise<Caller> {
      const { caller } = await makeUser(test.db);
      await test.db.project.update({
        where: { id: caller.projectIds[0]! },
        data: { liveJobLimit: 20_000, ...values },
      });
      return caller;
    }
    const submit = (caller: Caller) =>
      jobs.submit({ kind: work, payload: {}, by: caller, projectId: caller.projectIds[0]! });
    async function submitMany(caller: Caller, count: number): Promise<void> {
      for (let n = 0; n < count; n += 10) await Promise.all(Array.from({ length: 10 }, () => submit(caller)));
    }
    const done = (caller: Caller) =>
      test.db.job.count({ where: { projectId: caller.projectIds[0]!, state: 'succeeded' } });

    it("begins a project's only job next, whatever another one has waiting, and each one's in order", async () => {
      const [greedy, modest] = [await makeProject(), await makeProject()];
      await startHere();
      await submitMany(greedy, BACKLOG);
      await eventually(() => begun.length === SLOTS);
      const { id } = await submit(modest);
      open();
      await eventually(() => begun.length >= ENOUGH, PATIENT);
      // Those that ran had the slots; then it shares the first turn with as many as there are slots.
      expect(begun.indexOf(id)).toBeLessThan(2 * SLOTS);
      const inOrder = await test.db.job.findMany({
        where: { projectId: greedy.projectIds[0]! },
        orderBy: { createdAt: 'asc' },
        select: { id: true },
      });
      const turn = new Map(inOrder.map((job, index) => [job.id, index]));
      begun
        .filter((one) => one !== id)
        .forEach((one, index) => expect(Math.abs(turn.get(one)! - index)).toBeLessThan(WINDOW + 10));
    });

    it('runs no more of a project at once than it may, and of others what they may', async () => {
      const [narrow, wide] = [await makeProject({ concurrency: 3 }), await makeProject()];
      for (let n = 0; n < 20; n++) await submit(narrow);
      await submitMany(wide, 20);
      await startHere(30);
      // As many of both as may, as none of them ends.
      await eventually(() => begun.length === 23, PATIENT);
      open();
      await eventually(async () => (await done(narrow)) + (await done(wide)) === 40, PATIENT);
      expect(running.get(narrow.projectIds[0]!)!.most).toBe(3);
      expect(running.get(wide.projectIds[0]!)!.most).toBe(20);
    });

    it('loses nothing when the queue is emptied', async () => {
      const caller = await makeProject({ concurrency: 10 });
      await startHere();
      await submitMany(caller, 40);
      await eventually(() => begun.length === SLOTS);
      await queue.empty();
      open();
      await eventually(async () => (await done(caller)) === 40, PATIENT);
    });

    it('loses nothing when workers are killed', async () => {
      const caller = await makeProject({ concurrency: 10 });
      await submitMany(caller, 100);
      for (const enough of [20, 50, 100]) {
        const child = await startElsewhere();
        const ended = once(child, 'exit');
        await eventually(async () => (await done(caller)) >= enough, { ...PATIENT, everyMs: 5 });
        child.kill('SIGKILL');
        await ended;
      }
    });

    async function startElsewhere(): Promise<ChildProcess> {
      const child = fork(join(SUPPORT, 'work-worker.ts'), {
        execArgv: ['--no-warnings', '--import', join(SUPPORT, 'register-typescript.mjs')],
        env: { PATH: process.env.PATH, ...env },
      });
      await once(child, 'message');
      return child;
    }
  });
}
