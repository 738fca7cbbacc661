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
