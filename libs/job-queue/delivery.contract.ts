import { ConfigModule } from '@longhaul/config';
import { JobDelivery } from '@longhaul/jobs';
import { newId } from '@longhaul/persistence';
import { Module, type INestApplicationContext } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';
import { eventually } from '../../test/support/eventually.js';
import { JobConsumer, JobConsumerModule, JobQueueModule } from './index.js';

/** Keeps what it was given, for the spec to look at. */
class Notebook extends JobConsumer {
  consumed: string[] = [];
  running = 0;
  mostRunning = 0;
  gate: Promise<void> = Promise.resolve();
  isClosing = false;
  override async consume(jobId: string) {
    this.mostRunning = Math.max(this.mostRunning, ++this.running);
    await this.gate;
    this.running--;
    this.consumed.push(jobId);
  }

  async beforeApplicationShutdown() {
    this.isClosing = true;
    await this.gate;
  }
}

/** What every queue behind JobDelivery must do; run for Redis and for PostgreSQL. */
export function describeDelivery(
  name: string,
  config: () => Promise<{ DATABASE_URL: string; QUEUE_URL?: string }>,
) {
  describe(`delivery by ${name}`, () => {
    const queue = `bulk.${newId()}`;
    const notebook = new Notebook();
    let app: INestApplicationContext;
    let delivery: JobDelivery;

    beforeAll(async () => {
      @Module({ providers: [{ provide: JobConsumer, useValue: notebook }], exports: [JobConsumer] })
      class NotebookModule {}
      const settings = await config();
      @Module({
        imports: [
          ConfigModule.forRoot(settings),
          JobQueueModule,
          JobConsumerModule.forLanes([{ queue, concurrency: 3 }], NotebookModule),
        ],
      })
      class TestModule {}
      app = await NestFactory.createApplicationContext(TestModule, { logger: false });
      delivery = app.get(JobDelivery);
    });
    afterAll(() => app.close());

    const send = (jobId: string, number = 1, priority = 0) =>
      delivery.deliver({ jobId, number, queue, priority });
    /** Has three at work, which fills the lane, until the answer is called. */
    async function fill(): Promise<() => void> {
      let open = () => {};
      notebook.gate = new Promise((resolve) => (open = resolve));
      await Promise.all([newId(), newId(), newId()].map((id) => send(id)));
      await eventually(() => notebook.running === 3);
      return open;
    }
    const count = (jobId: string) => notebook.consumed.filter((id) => id === jobId).length;

    it('brings each id to a worker', async () => {
      const ids = Array.from({ length: 20 }, newId);
      await Promise.all(ids.map((id) => send(id)));
      await eventually(() => ids.every((id) => count(id) === 1));
    });

    it('brings an id again under the next number, also after the first has been consumed', async () => {
      const id = newId();
      await send(id, 1);
      await eventually(() => count(id) === 1);
      await send(id, 2);
      await eventually(() => count(id) === 2);
    });

    it('brings the most urgent first, those without a priority before all, and equals in turn', async () => {
      const open = await fill();
      const ids = Array.from({ length: 12 }, newId);
      const priorities = [50, 50, 2, 50, 1, 0, 50, 2, 1, 0, 50, 3];
      for (const [index, id] of ids.entries()) await send(id, 1, priorities[index]);
      open();
      await eventually(() => ids.every((id) => count(id) === 1));
      const wanted = [5, 9, 4, 8, 2, 7, 11, 0, 1, 3, 6, 10].map((index) => ids[index]!);
      const order = notebook.consumed.filter((id) => ids.includes(id));
      // Three at a time, so that neighbours may change places.
      order.forEach((id, index) => expect(Math.abs(wanted.indexOf(id) - index)).toBeLessThan(3));
    });

    it('runs as many at once as the lane allows, and no more', async () => {
      notebook.mostRunning = 0;
      const open = await fill();
      const ids = Array.from({ length: 9 }, newId);
      await Promise.all(ids.map((id) => send(id)));
      open();
      await eventually(() => ids.every((id) => count(id) === 1));
      expect(notebook.mostRunning).toBe(3);
    });

    it('brings nothing more to a worker that is about to end, while what it runs may end', async () => {
      let open = () => {};
      notebook.gate = new Promise((resolve) => (open = resolve));
      const [early, ...late] = Array.from({ length: 10 }, newId);
      await send(early!);
      await eventually(() => notebook.running === 1);
      const closed = app.close();
      await eventually(() => notebook.isClosing);
      for (const id of late) await send(id);
      open();
      await closed;
      expect([early!, ...late].map(count)).toEqual([1, ...late.map(() => 0)]);
    });
  });
}
