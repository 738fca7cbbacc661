import { setSwitch, type Caller } from '@longhaul/access';
import type { Vm } from '@longhaul/persistence';
import { z } from 'zod';
import { makeUser, makeVm, testDatabase, type TestDatabase } from '../../test/support/database.js';
import { HandWorker, NoDelivery } from '../../test/support/hand-worker.js';
import { Attempts, FencedError, Jobs, Recovery, defineJobKind, jobsConfig } from './index.js';

const kind = (exec?: true) =>
  defineJobKind({
    name: 'test.kind',
    version: 1,
    payload: z.strictObject({}),
    result: z.strictObject({}),
    scope: 'vms:exec',
    exec,
    lane: 'bulk',
    queueSeconds: 60,
    runSeconds: () => 60,
  });

let test: TestDatabase;
let jobs: Jobs;
let attempts: Attempts;
let caller: Caller;
let vm: Vm;

beforeAll(async () => {
  test = await testDatabase();
  jobs = new Jobs(test.db, test.audit, new NoDelivery(), test.changes);
  attempts = new Attempts(test.db, jobs, jobsConfig.parse({}));
});
afterAll(() => test.drop());
beforeEach(async () => {
  await turn(false);
  ({ caller } = await makeUser(test.db));
  vm = await makeVm(test.db, caller);
});

const turn = (engaged: boolean) => setSwitch(test.db, 'exec', engaged, { actor: 'test', reason: 'incident' });
/** As the tools do it; recovery comes by within a second. */
async function switchOn() {
  await turn(false);
  await jobs.redeliverCommands();
  await new Recovery(test.db, jobs).sweep();
}
const submit = async (exec?: true) => {
  const by = { userId: caller.userId };
  return (await jobs.submit({ kind: kind(exec), payload: {}, by, projectId: vm.projectId, vm })).id;
};
const claim = (id: string) => attempts.claim(id, 'worker');
const stateOf = async (id: string) => (await test.db.job.findUniqueOrThrow({ where: { id } })).state;

it('starts no command while the switch is on, and any other job', async () => {
  const [command, other] = [await submit(true), await submit()];
  await turn(true);
  expect(await claim(command)).toBeUndefined();
  expect(await claim(other)).toMatchObject({ state: 'running' });
  expect(await stateOf(command)).toBe('queued');
  await switchOn();
  expect(await claim(command)).toMatchObject({ state: 'running' });
});

it.each([{ execSuspended: true }, { execEnabled: false }])(
  'starts no command on a VM with %j',
  async (data) => {
    const command = await submit(true);
    await test.db.vm.update({ where: { id: vm.id }, data });
    expect(await claim(command)).toBeUndefined();
  },
);

it('gives back a command that was claimed before and has not begun', async () => {
  const command = await submit(true);
  const { attempt } = (await claim(command))!;
  await turn(true);
  await expect(attempts.intend({ jobId: command, attempt }, 'command')).rejects.toThrow(FencedError);
  expect(await stateOf(command)).toBe('queued');
  expect(await attempts.intents(command)).toEqual([]);
  await switchOn();
  expect(await claim(command)).toMatchObject({ attempt: 2 });
});

it('has a command that may have begun followed to its end', async () => {
  const command = await submit(true);
  const { attempt } = (await claim(command))!;
  await attempts.intend({ jobId: command, attempt }, 'command');
  await turn(true);
  await attempts.intend({ jobId: command, attempt }, 'command');
  await test.db.$executeRaw`UPDATE jobs SET lease_until = now() - interval '1 s' WHERE id = ${command}::uuid`;
  const recovery = new Recovery(test.db, jobs);
  await recovery.beat(['local']);
  await recovery.sweep();
  expect(await claim(command)).toMatchObject({ attempt: 2 });
});

it('fails a command that waited until its deadline', async () => {
  const command = await submit(true);
  await turn(true);
  await test.db.$executeRaw`UPDATE jobs SET deadline_at = now() - interval '1 s' WHERE id = ${command}::uuid`;
  const recovery = new Recovery(test.db, jobs);
  await recovery.beat(['local']);
  await recovery.sweep();
  expect(await jobs.find(command, caller)).toMatchObject({
    state: 'failed',
    error: { code: 'queue_timeout' },
  });
});

it('cancels all commands, and nothing else', async () => {
  const worker = new HandWorker(test);
  const [queued, running, other] = [await submit(true), await submit(true), await submit()];
  await worker.claim(running);
  expect(await jobs.cancelCommands({})).toBeGreaterThanOrEqual(2);
  expect(await stateOf(queued)).toBe('cancelled');
  expect(await jobs.find(running, caller)).toMatchObject({ cancelRequestedAt: expect.any(Date) });
  expect(await stateOf(other)).toBe('queued');
});
