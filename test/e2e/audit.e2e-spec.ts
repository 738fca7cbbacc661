import { once } from 'node:events';
import { newId } from '@longhaul/persistence';
import { modernRequest } from '../support/tasks.js';
import { Stack } from './stack.js';

/** By hand: AUDIT_CALLS=100000. */
const CALLS = Number(process.env.AUDIT_CALLS ?? 4_000);
const AT_ONCE = 32;

let stack: Stack;
beforeAll(async () => {
  stack = await Stack.start();
});
afterAll(() => stack.stop());

it(`loses no event of ${CALLS} answered calls while the API is killed in the middle`, async () => {
  const { method, headers, body } = modernRequest(stack.token, 'tools/call', {
    name: 'whoami',
    arguments: {},
  });
  const answered: string[] = [];
  let sent = 0;
  let restarted = Promise.resolve();
  const restart = async () => {
    const [api] = stack.processes;
    const ended = once(api!, 'exit');
    api!.kill('SIGKILL');
    await ended;
    await stack.startApi();
  };
  const kills = [0.25, 0.5, 0.75].map((share) => Math.round(CALLS * share));
  const client = async () => {
    for (;;) {
      await restarted;
      if (++sent > CALLS) return;
      if (kills.includes(sent)) restarted = restart();
      const id = newId();
      const init = { method, body, headers: { ...headers, 'x-request-id': id } };
      const response = await fetch(stack.url, init).catch(() => undefined);
      const text = await response?.text().catch(() => undefined);
      if (response?.ok && text?.includes('user_id')) answered.push(id);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, client));
  expect(answered.length).toBeGreaterThan(CALLS / 2);
  const [{ count }] = await stack.database.db.$queryRaw<[{ count: bigint }]>`
    SELECT count(DISTINCT request_id) FROM audit_events
    WHERE event = 'call' AND result = 'ok' AND request_id = ANY(${answered})`;
  expect(Number(count)).toBe(answered.length);
  process.stderr.write(`${CALLS} calls sent, ${answered.length} answered, all of them audited\n`);
});
