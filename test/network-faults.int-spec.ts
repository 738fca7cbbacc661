import type { Vm } from '@longhaul/persistence';
import { setLogLevel } from '@longhaul/telemetry';
import { endOf, type Call } from './e2e/stack.js';
import { Cluster } from './support/cluster.js';
import { expectOneRun, hasPrinted, startCounted, type Counted } from './support/counted.js';
import { eventually } from './support/eventually.js';
import { namespaceAgentLacks } from './support/namespace-agent.js';
import { patient } from './support/patient.js';
import { rpc } from './support/tasks.js';

// One process is cut off or stopped at a time, without a word, while there is work; what a test breaks is whole again for the
// next one.

const lacks = namespaceAgentLacks();
const onCluster = lacks ? describe.skip : describe;
const not = lacks ? `, not tested here, as that needs ${lacks}` : '';
/** Longer than anything takes that does not hang. */
const SECONDS_MS = 15_000;
const LEASE_SECONDS = 6;
const WORKERS = ['worker-1', 'worker-2', 'worker-3'];

let cluster: Cluster;
let call: Call;
let vm: Vm;

async function start(workers: number, leaseSeconds: number): Promise<void> {
  const env = { DATABASE_TIMEOUT_SECONDS: '3', RATE_CALLS: '0', JOB_LEASE_SECONDS: String(leaseSeconds) };
  cluster = await Cluster.start({ workers, swift: false, env });
  ({ vm } = await cluster.addAgentVm({}, { commandSlots: 50 }));
  call = patient(await cluster.stack.clientV2(undefined, '/x/all'));
}

const callAt = (api: string, name: string, args: object) =>
  rpc(
    new URL(`http://127.0.0.1:${cluster.members.get(api)!.env.PORT}/mcp`),
    cluster.stack.token,
    'tools/call',
    { name, arguments: args },
    {},
  );
const db = () => cluster.stack.database.db;
/** The worker of its latest attempt. */
async function workerOf({ id: jobId }: Counted): Promise<string> {
  return (await db().jobAttempt.findFirstOrThrow({ where: { jobId }, orderBy: { attempt: 'desc' } })).worker;
}
async function printing(pieces: number): Promise<Counted> {
  const command = await startCounted(call, vm.id, pieces);
  await eventually(() => hasPrinted(call, command), { withinMs: 90_000 });
  return command;
}
/** It takes a command, be it because all others are stopped. */
async function works(worker: string): Promise<void> {
  const others = WORKERS.filter((name) => name !== worker);
  for (const other of others) cluster.signal(other, 'SIGSTOP');
  const command = await startCounted(call, vm.id, 1);
  await eventually(async () => (await workerOf(command)) === worker, { withinMs: 60_000 });
  for (const other of others) cluster.signal(other, 'SIGCONT');
  await expectOneRun(call, command);
}

beforeAll(() => setLogLevel('silent'));

onCluster(`cut off or stopped, without a word${not}`, () => {
  beforeAll(() => start(WORKERS.length, LEASE_SECONDS));
  afterAll(() => cluster?.stop());

  it('a worker cut off from PostgreSQL: another one follows its command, and it takes work again afterwards', async () => {
    const command = await printing(40);
    const worker = await workerOf(command);
    cluster.partition(worker, 'postgres', 'blackhole');
    await eventually(async () => (await workerOf(command)) !== worker, { withinMs: 90_000 });
    cluster.heal(worker, 'postgres');
    await expectOneRun(call, command);
    expect(await cluster.stack.job(command.id)).toMatchObject({ attempt: 2 });
    await works(worker);
  });

  it('a worker cut off from Redis: it goes on with what it has, and takes work again afterwards', async () => {
    const command = await printing(30);
    const worker = await workerOf(command);
    cluster.partition(worker, 'redis', 'blackhole');
    await expectOneRun(call, command);
    expect(await cluster.stack.job(command.id)).toMatchObject({ attempt: 1 });
    cluster.heal(worker, 'redis');
    await works(worker);
  });

  it('an API cut off from PostgreSQL: it says that it is unavailable, and serves again afterwards', async () => {
    cluster.partition('api-1', 'postgres', 'blackhole');
    const begun = performance.now();
    const refused = { status: 503, code: 'unavailable', retryable: true };
    expect(await callAt('api-1', 'whoami', {})).toMatchObject(refused);
    expect(performance.now() - begun).toBeLessThan(SECONDS_MS);
    cluster.heal('api-1', 'postgres');
    await eventually(async () => (await callAt('api-1', 'whoami', {})).status === 200);
  });

  it('an API cut off from Redis: it takes jobs, in seconds, and they run', async () => {
    cluster.partition('api-1', 'redis', 'blackhole');
    const begun = performance.now();
    const args = { vm_id: vm.id, command: 'echo done' };
    const { result } = await callAt('api-1', 'start_vm_command', args);
    expect(performance.now() - begun).toBeLessThan(SECONDS_MS);
    const { command_id: id } = result!.structuredContent as { command_id: string };
    expect(await cluster.stack.ended(id)).toMatchObject({ state: 'succeeded' });
    cluster.heal('api-1', 'redis');
  });

  it('a worker stopped for two leases: each of its commands goes on elsewhere, taken once, and it does no harm', async () => {
    const commands = await Promise.all(Array.from({ length: 4 }, () => printing(60)));
    const jobId = { in: commands.map(({ id }) => id) };
    const { worker } = await db().jobAttempt.findFirstOrThrow({ where: { jobId, endedAt: null } });
    cluster.signal(worker, 'SIGSTOP');
    const twoLeasesOn = (await db().now()).getTime() + 2 * LEASE_SECONDS * 1000;
    const held = { attempts: { some: { worker, endedAt: null } } };
    await eventually(
      async () =>
        (await db().now()).getTime() > twoLeasesOn &&
        (await db().job.count({ where: { id: jobId, OR: [{ state: 'queued' }, held] } })) === 0,
      { withinMs: 90_000 },
    );
    cluster.signal(worker, 'SIGCONT');
    for (const command of commands) await expectOneRun(call, command);
    const attempts = await db().jobAttempt.findMany({ where: { jobId } });
    const lost = attempts.filter(({ outcome }) => outcome === 'lost');
    expect(lost.length).toBeGreaterThan(0);
    expect(lost).toEqual(lost.map((each) => ({ ...each, worker, attempt: 1 })));
    expect(attempts).toHaveLength(commands.length + lost.length);
    await works(worker);
  });
});

onCluster(`PostgreSQL replaced by another one, without a word${not}`, () => {
  // Whoever waited for a heartbeat or a lease would not be done before the test is over.
  beforeAll(() => start(2, 600));
  afterAll(() => cluster?.stop());

  it('commands go on, clients see them end, and workers hear of cancel requests at once again', async () => {
    const command = await printing(40);
    await cluster.failOver();
    await expectOneRun(call, command);
    const { command_id: id } = await call('start_vm_command', { vm_id: vm.id, command: 'sleep 1000' });
    const isRunning = async () => (await call('get_job', { job_id: id })).status === 'running';
    await eventually(isRunning);
    await call('cancel_vm_command', { command_id: id });
    expect(await endOf(call, { job_id: id, isError: false }, 90_000)).toMatchObject({ status: 'cancelled' });
  });
});
