import { jest } from '@jest/globals';
import type { AppError } from '@longhaul/errors';
import { Database, newId } from '@longhaul/persistence';
import { testDatabase, type TestDatabase } from '../../test/support/database.js';
import { Rates, ratesConfig, type Counter } from './index.js';

let test: TestDatabase;
const open: Rates[] = [];

beforeAll(async () => {
  test = await testDatabase();
});
afterAll(async () => {
  open.forEach((rates) => rates.onApplicationShutdown());
  await test.drop();
});

async function replica(limits: object, QUEUE_URL?: string, db = test.db): Promise<Rates> {
  const rates = new Rates(db, { ...ratesConfig.parse(limits), QUEUE_URL });
  open.push(rates);
  await rates.onModuleInit();
  return rates;
}

const rejection = (call: Promise<void>) =>
  call.then(
    () => Promise.reject(new Error('it was let through')),
    (error: unknown) => error as AppError,
  );

/** How many of `times` get through, spread over the replicas. */
async function passed(replicas: Rates[], userId: string, times: number): Promise<number> {
  const tries = Array.from({ length: times }, (_none, n) => replicas[n % replicas.length]!.call({ userId }));
  const outcomes = await Promise.allSettled(tries);
  return outcomes.filter(({ status }) => status === 'fulfilled').length;
}

describe.each([
  ['PostgreSQL', () => undefined],
  ['Redis', () => process.env.TEST_REDIS_URL],
])('limits kept in %s', (_store, url) => {
  it('are those of all replicas together', async () => {
    const user = newId();
    const replicas = await Promise.all([1, 2, 3].map(() => replica({ RATE_CALLS: 30 }, url())));
    expect(await passed(replicas, user, 100)).toBe(30);
    await expect(replicas[0]!.call({ userId: user })).rejects.toMatchObject({
      code: 'rate_limited',
      details: { retry_after: expect.any(Number), limit: 30, window_seconds: 60 },
    });
    expect(await passed(replicas, newId(), 10)).toBe(10);
  });

  it('let through a little less than the limit when shares are left, never more', async () => {
    const user = newId();
    const replicas = await Promise.all([1, 2].map(() => replica({ RATE_CALLS: 500 }, url())));
    await replicas[1]!.call({ userId: user });
    const after = await passed([replicas[0]!], user, 600);
    expect(after).toBe(490);
    expect(await passed([replicas[1]!], user, 20)).toBe(9);
  });

  it('are apart for calls, VMs and submissions', async () => {
    const rates = await replica({ RATE_CALLS: 1, RATE_VM_CALLS: 1, RATE_SUBMISSIONS: 1 }, url());
    const id = newId();
    for (const take of [
      () => rates.call({ userId: id }),
      () => rates.vmCall(id),
      () => rates.submission({ userId: id }),
    ]) {
      await take();
      await expect(take()).rejects.toMatchObject({ code: 'rate_limited' });
    }
  });

  it('count what is rare on all replicas together, and take back', async () => {
    const key = newId();
    const replicas = await Promise.all([1, 2].map(() => replica({}, url())));
    const [here, there] = replicas.map((rates) => rates.counter('rare', 2, 60)) as [Counter, Counter];
    await here.consume(key);
    await there.consume(key);
    await here.reward(key);
    await there.consume(key);
    await expect(here.consume(key)).rejects.toMatchObject({ msBeforeNext: expect.any(Number) });
    await expect(replicas[0]!.counter('other', 2, 60).consume(key)).resolves.toBeDefined();
  });
});

it('are of the database’s clock, whatever the clocks of replicas say', async () => {
  const right = Date.now;
  const clock = jest.spyOn(Date, 'now');
  const user = newId();
  // Each of these begins a process, as another one knows nothing of the window.
  for (const [hours, through] of [
    [1, 3],
    [-1, 2],
    [0, 0],
  ] as const) {
    clock.mockImplementation(() => right() + hours * 3_600_000);
    expect(await passed([await replica({ RATE_CALLS: 5 })], user, Math.max(through, 1))).toBe(through);
  }
  const { details } = await rejection((await replica({ RATE_CALLS: 5 })).call({ userId: user }));
  expect(details!.retry_after).toBeLessThanOrEqual(60);
  clock.mockRestore();
});

it('limits nothing at 0', async () => {
  expect(await passed([await replica({ RATE_CALLS: 0 })], newId(), 500)).toBe(500);
});

it('begins anew with the next window', async () => {
  const rates = await replica({ RATE_CALLS: 1 });
  const user = newId();
  await rates.call({ userId: user });
  await test.db.rateLimit.updateMany({ data: { expire: 0 } });
  // Another process knows nothing of the window that it was.
  await (await replica({ RATE_CALLS: 1 })).call({ userId: user });
});

it('counts alone while the store is away', async () => {
  const away = new Database({ DATABASE_URL: 'postgres://nobody@127.0.0.1:1/none', DATABASE_POOL: 1 });
  for (const rates of [
    await replica({ RATE_CALLS: 5 }, undefined, away),
    await replica({ RATE_CALLS: 5 }, 'redis://127.0.0.1:1'),
  ])
    expect(await passed([rates], newId(), 20)).toBe(5);
  await away.onApplicationShutdown();
});
