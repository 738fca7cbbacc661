import { setLogLevel } from '@longhaul/telemetry';
import { whenUp } from './when-up.js';

beforeAll(() => setLogLevel('silent'));

const away = Object.assign(new Error('connect ECONNREFUSED 127.0.0.1:5432'), { code: 'ECONNREFUSED' });

it('tries again while the database is away, and answers what it says then', async () => {
  const answers = [() => Promise.reject(away), () => Promise.resolve('here')];
  expect(await whenUp(() => answers.shift()!())).toBe('here');
});

it('gives up after a while, and says so', async () => {
  const error = { message: 'PostgreSQL was away for 0 s', cause: away };
  await expect(whenUp(() => Promise.reject(away), 0)).rejects.toMatchObject(error);
});

it('gives up at once what would not pass', async () => {
  const refused = Object.assign(new Error('password authentication failed'), { code: '28P01' });
  await expect(whenUp(() => Promise.reject(refused))).rejects.toBe(refused);
});
