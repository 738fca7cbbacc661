import { newId } from '@longhaul/persistence';
import { eventually } from '../../test/support/eventually.js';
import { Relay } from '../../test/support/relay.js';
import { describeDelivery } from './delivery.contract.js';
import { BullDelivery, QueueConnection } from './index.js';

const DATABASE_URL = process.env.TEST_DATABASE_URL!;

describeDelivery('Redis', async () => ({ DATABASE_URL, QUEUE_URL: process.env.TEST_REDIS_URL }));

it('fails at once when Redis is away, instead of keeping deliveries in memory', async () => {
  const delivery = new BullDelivery(
    await QueueConnection.open({ DATABASE_URL, QUEUE_URL: 'redis://127.0.0.1:1' }),
  );
  await expect(delivery.deliver({ jobId: 'x', number: 1, queue: 'bulk.x', priority: 0 })).rejects.toThrow(
    'the queue is away',
  );
  await delivery.onApplicationShutdown();
});

it('gives up a connection that was cut off without a word', async () => {
  const url = new URL(process.env.TEST_REDIS_URL!);
  const relay = await Relay.open(Number(url.port));
  url.port = String(relay.port);
  const delivery = new BullDelivery(await QueueConnection.open({ DATABASE_URL, QUEUE_URL: url.href }));
  await delivery.onModuleInit();
  let number = 0;
  const deliver = () => delivery.deliver({ jobId: newId(), number: ++number, queue: 'bulk.x', priority: 0 });
  await deliver();
  relay.abandon();
  await expect(deliver()).rejects.toThrow();
  await eventually(() => deliver().then(() => true));
  await delivery.onApplicationShutdown();
  relay.close();
});
