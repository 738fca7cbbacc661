import { Redis } from 'ioredis';
import { describeRouting } from './routing.contract.js';

describeRouting('Redis', () => {
  // A database of its own, as all workers of all specs serve the shared queues.
  const url = `${process.env.TEST_REDIS_URL}/7`;
  return {
    url,
    async empty() {
      const redis = new Redis(url);
      await redis.flushdb();
      await redis.quit();
    },
  };
});
