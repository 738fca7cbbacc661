import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import type { Caller } from '@longhaul/access';
import { AppError } from '@longhaul/errors';
import { AgentChannel, readEpoch, type GuestChannel } from '@longhaul/guest';
import type { Vm } from '@longhaul/persistence';
import { setLogLevel } from '@longhaul/telemetry';
import { currentEpoch, notePower } from '@longhaul/toolsets/vms/epoch';
import { observedOf, type Observed } from '@longhaul/toolsets/vms/observed';
import type { VmAbility, VmAddress, VmObservation, VmProvider } from '@longhaul/vm-providers';
import { makeUser, makeVm, testDatabase, type TestDatabase } from '../../test/support/database.js';
import { eventually } from '../../test/support/eventually.js';
import {
  namespaceAgentLacks,
  startNamespaceAgent,
  type NamespaceAgent,
} from '../../test/support/namespace-agent.js';
import { Observer } from './observer.js';

/** What an observer needs of a provider, told by the test; the guest is a real agent. */
type Looked = Pick<VmProvider, 'abilities' | 'observe' | 'addresses' | 'greet' | 'guest'>;

const ADDRESS: VmAddress = { family: 4, address: '192.0.2.7', kind: 'direct' };

let test: TestDatabase;
let caller: Caller;
let agent: NamespaceAgent;
let vm: Vm;
let power: VmObservation['power'];
beforeAll(async () => {
  setLogLevel('silent');
  test = await testDatabase();
  ({ caller } = await makeUser(test.db));
  agent = await startNamespaceAgent({ diskMb: 10 });
}, 60_000);
afterAll(async () => {
  await agent.stop();
  await test.drop();
});
beforeEach(async () => {
  power = 'running';
  await test.db.vm.deleteMany();
  vm = await makeVm(test.db, caller, { host: 'here' });
});

const looked = (more: Partial<Looked> = {}): Looked => ({
  abilities: new Set<VmAbility>(['suspend', 'power']),
  observe: async () => ({ power }),
  addresses: async () => [ADDRESS],
  greet: async () => {},
  guest: () => agent.channel,
  ...more,
});
const observer = (provider: Looked) =>
  new Observer({ WORKER_HOSTS: ['here'] }, test.db, { of: () => provider as VmProvider });
const row = () => test.db.vm.findUniqueOrThrow({ where: { id: vm.id } });

/** As if time had passed since the last look: rounds until the row is as `fits` says. */
async function until(of: Observer, fits: (vm: Vm, seen: Observed) => boolean): Promise<Observed> {
  await test.db.$executeRaw`
    UPDATE vms SET observed_at = now() - interval '1 minute', observed = observed - 'agent_asked_at'`;
  return eventually(async () => {
    await of.round();
    const now = await row();
    return fits(now, observedOf(now)) && observedOf(now);
  });
}

const withAgent = namespaceAgentLacks({}) ? it.skip : it;

withAgent(
  'greets a guest that has booted by itself, and names the boot; not one that had no epoch',
  async () => {
    let greeted = 0;
    const provider = looked({ greet: async () => void greeted++ });
    const of = observer(provider);
    const answers = () => until(of, (_vm, { agent }) => agent === 'answers');
    const inGuest = () => agent.channel.session(readEpoch);
    await answers();
    expect([await inGuest(), greeted]).toEqual([undefined, 0]);
    const epoch = await agent.channel.session((session) => currentEpoch(test.db, vm.id, provider, session));
    await answers();
    expect([await inGuest(), (await row()).epoch, greeted]).toEqual([epoch, epoch, 1]);
    // What a boot does to /run.
    await agent.channel.session((session) =>
      session.run({ path: 'rm', args: ['/run/longhaul/epoch'] }, 10_000),
    );
    await until(of, (now) => now.epoch !== epoch);
    await eventually(inGuest);
    expect([await inGuest(), greeted]).toEqual([(await row()).epoch, 2]);
  },
);

withAgent(
  'notes power, abilities, addresses, the guest, and how full its disk is, each with its age',
  async () => {
    const before = Date.now();
    const seen = await until(observer(looked()), (_vm, { agent }) => agent === 'answers');
    expect(seen).toMatchObject({ abilities: ['power', 'suspend'], addresses: [ADDRESS], disk_full: false });
    expect(seen.disk_used_percent).toBeGreaterThan(0);
    expect(Date.parse(seen.agent_seen_at!)).toBeGreaterThanOrEqual(before);
    expect(Date.parse(seen.disk_seen_at!)).toBeGreaterThanOrEqual(before);
  },
);

withAgent('leaves a guest in peace that somebody talks to, and what is known of it as it was', async () => {
  const watcher = observer(looked());
  const { agent_seen_at } = await until(watcher, (_vm, { agent }) => agent === 'answers');
  await agent.channel.session(async (guest) => {
    await until(watcher, ({ observedAt }) => observedAt!.getTime() > Date.now() - 30_000);
    await guest.ping();
  });
  expect(observedOf(await row())).toMatchObject({ agent: 'answers', agent_seen_at });
});

it('says since when an agent is silent, and forgets it with the power', async () => {
  await test.db.vm.update({
    where: { id: vm.id },
    data: { observed: { agent: 'answers', agent_seen_at: '2026-01-02T03:04:05.000Z', disk_used_percent: 7 } },
  });
  const nobody = new AgentChannel({
    socketPath: '/nowhere/agent.sock',
    lockDirectory: join('/tmp', randomUUID()),
  });
  const watcher = observer(looked({ guest: () => nobody }));
  const silent = await until(watcher, (_vm, { agent }) => agent === 'silent');
  expect(silent).toMatchObject({ agent_seen_at: '2026-01-02T03:04:05.000Z', disk_used_percent: 7 });
  power = 'crashed';
  const off = await until(watcher, ({ powerState }) => powerState === 'crashed');
  expect(off).toMatchObject({ agent: 'unknown', addresses: [], disk_used_percent: 7 });
});

it('tells subscribers of a change, and of nothing else', async () => {
  const busy: GuestChannel = { session: () => Promise.reject(new AppError('unavailable', 'Busy.')) };
  let told = 0;
  const unsubscribe = test.changes.on(vm.id, () => told++);
  const watcher = observer(looked({ guest: () => busy }));
  await until(watcher, (_vm, { abilities }) => abilities !== undefined);
  await eventually(() => told === 1);
  const { observedAt } = await row();
  await until(watcher, (now) => now.observedAt! > observedAt!);
  power = 'crashed';
  await until(watcher, ({ powerState }) => powerState === 'crashed');
  await eventually(() => told === 2);
  unsubscribe();
});

it('does not let one VM that is stuck, nor many, delay the others', async () => {
  const stuck = new Set<string>();
  for (let n = 0; n < 40; n++) stuck.add((await makeVm(test.db, caller, { host: 'here' })).id);
  const others = await Promise.all(
    Array.from({ length: 20 }, () => makeVm(test.db, caller, { host: 'here' })),
  );
  const asked: string[] = [];
  const observe = (id: string) => {
    asked.push(id);
    return stuck.has(id) ? new Promise<never>(() => {}) : Promise.resolve({ power: 'paused' as const });
  };
  const watcher = observer(looked({ observe }));
  await eventually(async () => {
    await watcher.round();
    const paused = await test.db.vm.count({ where: { powerState: 'paused' } });
    return paused === others.length + 1;
  });
  expect(asked.filter((id) => stuck.has(id)).length).toBeLessThanOrEqual(stuck.size);
}, 60_000);

it('goes on with a VM that could not be looked at once', async () => {
  await until(
    observer(looked({ observe: () => Promise.reject(new AppError('unavailable', 'No.')) })),
    () => true,
  );
  expect((await row()).observed).toBeNull();
  await until(observer(looked()), (_vm, { abilities }) => abilities !== undefined);
});

it('does not write over what a job has noted since the look began, nor make a row that is gone', async () => {
  const gone = await makeVm(test.db, caller, { host: 'here' });
  const answers: (() => void)[] = [];
  const observe = () =>
    new Promise<VmObservation>((resolve) => answers.push(() => resolve({ power: 'running' })));
  const watcher = observer(looked({ observe }));
  await watcher.round();
  expect(answers).toHaveLength(2);
  await notePower(test.db, vm.id, 'stopped');
  await test.db.vm.delete({ where: { id: gone.id } });
  answers.forEach((answer) => answer());
  await watcher.round();
  await watcher.round();
  expect((await row()).powerState).toBe('stopped');
  expect(await test.db.vm.count({ where: { id: gone.id } })).toBe(0);
});
