import type { Vm } from '@longhaul/persistence';
import { endOf, type Call } from './e2e/stack.js';
import { Cluster, type ServerName } from './support/cluster.js';
import { expectOneRun, hasPrinted, startCounted } from './support/counted.js';
import { eventually } from './support/eventually.js';
import { namespaceAgentLacks } from './support/namespace-agent.js';
import { patient } from './support/patient.js';
import { SWIFT_LACKS } from './support/swift.js';
import { rpc } from './support/tasks.js';

// One server is away at a time, while there is work; what a test breaks is whole again for the next one.

const lacks = namespaceAgentLacks();
const onCluster = lacks ? describe.skip : describe;
const onSwift = SWIFT_LACKS ? it.skip : it;
const APIS = ['api-1', 'api-2'];
const WORKERS = ['worker-1', 'worker-2'];
/** Longer than anything takes that does not hang. */
const SECONDS_MS = 15_000;
const LEASE_SECONDS = 4;

onCluster(`while a server is away${lacks ? `, not tested here, as that needs ${lacks}` : ''}`, () => {
  let cluster: Cluster;
  let call: Call;
  let vm: Vm;

  beforeAll(async () => {
    const env = { JOB_LEASE_SECONDS: String(LEASE_SECONDS), DATABASE_TIMEOUT_SECONDS: '3', RATE_CALLS: '0' };
    cluster = await Cluster.start({ workers: 2, env });
    ({ vm } = await cluster.addAgentVm({}, { commandSlots: 50 }));
    call = patient(await cluster.stack.clientV2(undefined, '/x/all'));
  });
  afterAll(() => cluster?.stop());

  const db = () => cluster.stack.database.db;
  const addressOf = (api: string) => new URL(`http://127.0.0.1:${cluster.members.get(api)!.env.PORT}/mcp`);
  /** One API, past the proxy. */
  const ask = (api: string) =>
    rpc(addressOf(api), cluster.stack.token, 'tools/call', { name: 'whoami', arguments: {} });
  const said = async (command: string) =>
    (await call('exec_vm_command', { vm_id: vm.id, command })).stdout as string;
  const start = async (command: string) =>
    (await call('start_vm_command', { vm_id: vm.id, command })).command_id as string;
  const succeeded = async (id: string) =>
    expect(await cluster.stack.ended(id, 60_000)).toMatchObject({ state: 'succeeded' });
  /** An artifact, and how its bytes are sent to the store. */
  async function announce() {
    const bytes = Buffer.from('kept');
    const announced = await cluster.stack.announce(call, vm.id, bytes);
    const { url, headers, artifact_id: artifactId } = announced as unknown as Record<string, string>;
    return {
      artifactId: artifactId!,
      put: () => fetch(url!, { method: 'PUT', headers: headers as never, body: bytes }),
    };
  }
  /** Does not wait for the tool, which answers once the file is there or after 30 s. */
  async function install(artifactId: string): Promise<{ jobId: string; answered: Promise<unknown> }> {
    const args = { vm_id: vm.id, artifact_id: artifactId, destination_path: '/run/kept' };
    const answered = call('install_artifact', args);
    const payload = { path: ['artifact_id'], equals: artifactId };
    const { id: jobId } = await eventually(() => db().job.findFirst({ where: { payload } }));
    return { jobId, answered };
  }
  async function installed({ jobId, answered }: Awaited<ReturnType<typeof install>>): Promise<void> {
    expect(await endOf(call, { job_id: jobId, isError: false })).toMatchObject({ status: 'succeeded' });
    await answered;
    expect(await said('cat /run/kept; rm /run/kept')).toBe('kept');
  }
  /** Ends it and starts it again where it cannot reach that server; goes on once it has tried to, twice. */
  async function startWithout(name: string, server: ServerName): Promise<{ started: Promise<void> }> {
    await cluster.end(name);
    cluster.partition(name, server, 'cut');
    const relay = cluster.relay(name, server);
    const before = relay.refused;
    const started = cluster.startProcess(name);
    await Promise.race([started, eventually(() => relay.refused > before + 1)]);
    return { started };
  }

  it('Redis emptied with 50 commands in its queues: each runs, once', async () => {
    for (const worker of WORKERS) cluster.signal(worker, 'SIGSTOP');
    const ids = await Promise.all(Array.from({ length: 50 }, (_, n) => start(`echo ${n} >> /run/ran`)));
    await cluster.flushRedis();
    for (const worker of WORKERS) cluster.signal(worker, 'SIGCONT');
    await Promise.all(ids.map(succeeded));
    const ran = (await said('sort -n /run/ran')).trim().split('\n');
    expect(ran).toEqual(ids.map((_id, n) => String(n)));
  });

  it('Redis killed: what is submitted meanwhile runs once it is back at its port', async () => {
    await cluster.server('redis').stop('kill');
    const id = await start('echo done');
    await cluster.server('redis').start();
    await succeeded(id);
  });

  it('a worker that starts without Redis takes work as soon as that is there', async () => {
    const { started } = await startWithout('worker-2', 'redis');
    await cluster.end('worker-1', 'SIGKILL');
    cluster.heal('worker-2', 'redis');
    await started;
    await succeeded(await start('echo done'));
    await cluster.startProcess('worker-1');
  });

  it('PostgreSQL crashed under commands that print: they go on, run once, and no log has a gap', async () => {
    const commands = await Promise.all([1, 2, 3].map(() => startCounted(call, vm.id, 20)));
    for (const command of commands) await eventually(() => hasPrinted(call, command), { withinMs: 90_000 });
    await cluster.server('postgres').stop('immediate');
    for (const api of APIS) {
      const begun = performance.now();
      expect(await ask(api)).toMatchObject({ status: 503, code: 'unavailable', retryable: true });
      expect(performance.now() - begun).toBeLessThan(SECONDS_MS);
    }
    await cluster.server('postgres').start();
    for (const command of commands) await expectOneRun(call, command);
  });

  it.each(['api-1', 'worker-1'])('%s, started while PostgreSQL is away, waits for it', async (name) => {
    const { started } = await startWithout(name, 'postgres');
    cluster.heal(name, 'postgres');
    await started;
    if (name === 'worker-1') {
      await cluster.end('worker-2', 'SIGKILL');
      await succeeded(await start('echo done'));
      await cluster.startProcess('worker-2');
    } else await eventually(async () => (await ask(name)).status === 200);
  });

  onSwift(
    'the store away: what needs it says so and can be repeated; an installation waits for it',
    async () => {
      const { artifactId: artifact_id, put } = await announce();
      await cluster.server('swift').stop();
      await expect(put()).rejects.toThrow();
      const asked = await rpc(addressOf('api-1'), cluster.stack.token, 'tools/call', {
        name: 'get_artifact',
        arguments: { artifact_id },
      });
      expect(JSON.stringify(asked)).toMatch(/unavailable/);
      await cluster.server('swift').start();
      expect((await put()).ok).toBe(true);
      expect(await call('get_artifact', { artifact_id })).toMatchObject({ state: 'uploaded' });

      await cluster.server('swift').stop();
      const installation = await install(artifact_id);
      const { jobId } = installation;
      await eventually(() => db().jobAttempt.findFirst({ where: { jobId, outcome: 'lost' } }));
      await cluster.server('swift').start();
      await installed(installation);
    },
  );

  onSwift(
    'the store cut off from workers without a word: an installation goes on with its lease',
    async () => {
      const { artifactId, put } = await announce();
      expect((await put()).ok).toBe(true);
      for (const worker of WORKERS) cluster.partition(worker, 'swift', 'blackhole');
      const installation = await install(artifactId);
      const leaseUntil = async () => (await cluster.stack.job(installation.jobId)).leaseUntil!.getTime();
      const first = await eventually(leaseUntil);
      await eventually(async () => (await leaseUntil()) > first + LEASE_SECONDS * 1000);
      for (const worker of WORKERS) cluster.heal(worker, 'swift');
      await installed(installation);
    },
  );
});
