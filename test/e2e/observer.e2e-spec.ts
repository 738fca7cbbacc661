import type { Vm } from '@longhaul/persistence';
import { eventually } from '../support/eventually.js';
import { qemuPidsOf } from '../support/processes.js';
import { Stack, type Answer, type Call } from './stack.js';

let stack: Stack;
let vm: Vm;
let call: Call;

beforeAll(async () => {
  stack = await Stack.start();
  await stack.startWorker();
  vm = await stack.createVm();
  call = await stack.clientV2();
});
afterAll(() => stack.stop());

const inGuest = (script: string) =>
  stack.provider.guest(vm.id).session((guest) => guest.spawn({ path: 'sh', args: ['-c', script] }));

/** As if more than a minute had passed since its guest was asked. */
const makeDue = () =>
  stack.database.db.$executeRaw`UPDATE vms SET observed = observed - '{agent_asked_at,disk_seen_at}'::text[]`;

const shown = (fits: (vm: Answer) => unknown) =>
  eventually(
    async () => {
      const answer = await call('get_vm', { vm_id: vm.id });
      return (await fits(answer)) ? answer : undefined;
    },
    { withinMs: 90_000, everyMs: 100 },
  );

it('shows a guest that answers, and how full its disk is', async () => {
  const now = await shown(({ guest_agent, disk_seen_at }) => guest_agent === 'answers' && disk_seen_at);
  expect(now).toMatchObject({ power_state: 'running', disk_full: false });
  expect(now.disk_used_percent).toBeGreaterThan(0);
});

it('shows that the disk is full', async () => {
  await inGuest(`fallocate -l "$(df -Pk / | awk 'END { print $4 }')K" /root/fill`);
  const full = await shown(async ({ disk_full }) => disk_full || (await makeDue(), false));
  expect(full.disk_used_percent).toBeGreaterThanOrEqual(99);
});

it('shows since when the agent is silent', async () => {
  await inGuest('sleep 1; kill -STOP $(pidof qemu-ga)');
  const silent = await shown(async ({ guest_agent }) => guest_agent === 'silent' || (await makeDue(), false));
  expect(silent.power_state).toBe('running');
  expect(Date.parse(silent.guest_agent_seen_at as string)).toBeLessThan(Date.now());
});

it('notices a VM that dies by itself', async () => {
  process.kill(qemuPidsOf(vm.id)[0]!, 'SIGKILL');
  const died = Date.now();
  const crashed = await shown(({ power_state }) => power_state === 'crashed');
  // Within 10 s, on a machine that is not busy with other things.
  expect(Date.now() - died).toBeLessThan(30_000);
  expect(Date.parse(crashed.observed_at as string)).toBeGreaterThan(died - 1_000);
  expect(crashed.guest_agent).toBe('unknown');
  if (process.env.TEST_LOG_LEVEL) console.log(`noticed after ${Date.now() - died} ms`);
});
