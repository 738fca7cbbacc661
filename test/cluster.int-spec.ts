import { randomUUID } from 'node:crypto';
import { Cluster } from './support/cluster.js';
import { eventually } from './support/eventually.js';
import { namespaceAgentLacks, startNamespaceAgent } from './support/namespace-agent.js';
import { patient } from './support/patient.js';
import { SWIFT_LACKS } from './support/swift.js';
import { sha256, type Call } from './e2e/stack.js';

// Two APIs, three workers and their servers as processes of their own; what a test breaks is whole again for the next one.

const lacks = namespaceAgentLacks();
const onCluster = lacks ? describe.skip : describe;

onCluster(`a cluster of processes${lacks ? `, not tested here, as that needs ${lacks}` : ''}`, () => {
  let cluster: Cluster;
  let vmId: string;
  let call: Call;

  beforeAll(async () => {
    cluster = await Cluster.start();
    vmId = (await cluster.addAgentVm()).vm.id;
    call = await cluster.stack.clientV2();
  });
  afterAll(() => cluster?.stop());

  const patiently: Call = (name, args) => patient(call)(name, args);
  const ended = (id: unknown) =>
    eventually(
      async () => {
        const job = await patiently('wait_for_job', { job_id: id, timeout_seconds: 20 });
        return ['queued', 'running'].includes(job.status as string) ? undefined : job;
      },
      { withinMs: 120_000 },
    );
  const start = async (command: string) => {
    const args = { vm_id: vmId, command, idempotency_key: randomUUID() };
    return (await patiently('start_vm_command', args)).command_id as string;
  };
  const works = async () =>
    expect(await ended(await start('echo hello'))).toMatchObject({ status: 'succeeded' });

  it('takes the APIs in turn, and passes over one that is killed', async () => {
    await cluster.end('api-1', 'SIGKILL');
    await works();
    await cluster.startProcess('api-1');
    await cluster.restart('api-2', 'SIGKILL');
    await works();
  });

  it('adopts a VM by the socket of its guest agent alone', async () => {
    const agent = await startNamespaceAgent();
    const { out, err } = await cluster.stack.adopt('by-agent', '--agent', agent.socketPath);
    expect(err).toBe('');
    const [id] = /[0-9a-f-]{36}/.exec(out)!;
    const ran = await call('exec_vm_command', { vm_id: id, command: 'echo hello' });
    expect(ran).toMatchObject({ stdout: 'hello\n' });
    await agent.stop();
  });

  it('runs jobs with a single worker left', async () => {
    await Promise.all(['worker-1', 'worker-3'].map((name) => cluster.end(name, 'SIGKILL')));
    await works();
    await Promise.all(['worker-1', 'worker-3'].map((name) => cluster.startProcess(name)));
  });

  it.each(['fast', 'immediate'] as const)('works after a %s restart of PostgreSQL', async (mode) => {
    await works();
    await cluster.restartServer('postgres', mode);
    await works();
  });

  it('works after Redis was restarted, and after it was emptied', async () => {
    await cluster.restartServer('redis');
    await works();
    await cluster.flushRedis();
    await works();
  });

  it('runs a job by another worker when the one that has it is in a partition', async () => {
    const jobId = await start('echo begun; sleep 12; echo ended');
    const { jobAttempt } = cluster.stack.database.db;
    const { worker } = await eventually(() => jobAttempt.findFirst({ where: { jobId } }));
    cluster.partition(worker, 'postgres', 'blackhole');
    expect(await ended(jobId)).toMatchObject({ status: 'succeeded' });
    cluster.heal(worker, 'postgres');
    expect(await jobAttempt.count({ where: { jobId } })).toBeGreaterThan(1);
    const log = await patiently('read_vm_command_logs', { command_id: jobId });
    expect(log.stdout).toBe('begun\nended\n');
  });

  (SWIFT_LACKS ? it.skip : it)('keeps files while Swift is restarted', async () => {
    const content = Buffer.from('kept');
    const facts = { filename: 'f', size_bytes: 4, sha256: sha256(content), purpose: 'config' };
    const announced = await patiently('create_artifact_upload', { vm_id: vmId, ...facts });
    const { url, headers } = announced as unknown as { url: string; headers: Record<string, string> };
    expect((await fetch(url, { method: 'PUT', headers, body: content })).ok).toBe(true);
    await cluster.restartServer('swift');
    const { artifact_id } = announced;
    const install = {
      vm_id: vmId,
      artifact_id,
      destination_path: '/run/kept',
      idempotency_key: randomUUID(),
    };
    await ended((await patiently('install_artifact', install)).job_id);
    const read = await call('exec_vm_command', { vm_id: vmId, command: 'cat /run/kept' });
    expect(read).toMatchObject({ stdout: 'kept' });
  });
});
