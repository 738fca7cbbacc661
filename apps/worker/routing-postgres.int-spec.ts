import { describeRouting } from './routing.contract.js';

describeRouting('PostgreSQL', ({ url, db }) => ({
  url,
  empty: () => db.$executeRaw`TRUNCATE bullmq.job CASCADE`,
}));
