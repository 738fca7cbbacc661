import { randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { endOf, readToEnd, type Answer, type Call } from './e2e/stack.js';
import { Cluster } from './support/cluster.js';
import { eventually } from './support/eventually.js';
import { namespaceAgentLacks } from './support/namespace-agent.js';

// All processes of a cluster are restarted in order, one after the other, while clients call and commands run.

const lacks = namespaceAgentLacks();
const onCluster = lacks ? describe.skip : describe;

/** Whoever would wait for it is not done before the test is over. */
const LEASE_SECONDS = '600';

onCluster(`a rolling restart${lacks ? `, not tested here, as that needs ${lacks}` : ''}`, () => {
  let cluster: Cluster;
  const vms: string[] = [];
  let call: Call;
  const failed: unknown[] = [];
  let answered = 0;

  beforeAll(async () => {
    const env = { JOB_LEASE_SECONDS: LEASE_SECONDS, SHUTDOWN_DELAY_SECONDS: '3', RATE_CALLS: '0' };
    cluster = await Cluster.start({ swift: false, env });
    for (let n = 0; n < 4; n++) vms.push((await cluster.addAgentVm()).vm.id);
    call = await connecting(await cluster.stack.clientV2(undefined, '/x/all'));
  });
  afterAll(() => cluster?.stop());

  /** Tries again what could not connect or lost its connection, and nothing else. */
  const connecting = (send: Call): Call =>
    async function again(name, args): Promise<Answer> {
      try {
        const answer = await send(name, args);
        answered++;
        if (answer.isError) failed.push([name, args, answer]);
        return answer;
      } catch (error) {
        // Of fetch, which has errors of another realm than Jest's.
        if ((error as Error).name !== 'TypeError') throw error;
        return again(name, args);
      }
    };

  const start = async (vmId: string, command: string) => {
    const args = { vm_id: vmId, command, idempotency_key: randomUUID() };
    return (await call('start_vm_command', args)).command_id as string;
  };
  const said = async (vmId: string, command: string) =>
    (await call('exec_vm_command', { vm_id: vmId, command })).stdout;
  /** An empty file there. */
  const put = async (vmId: string, destination_path: string) => {
    const artifact_id = await cluster.stack.upload(call, vmId, Buffer.of());
    await endOf(call, await call('install_artifact', { vm_id: vmId, artifact_id, destination_path }));
  };

  /** Commands one after the other, each of which says in the guest that it has run; answers how many. */
  async function work(vmId: string, isOver: () => boolean): Promise<number> {
    let count = 0;
    for (; !isOver(); count++) {
      const id = await start(vmId, `echo ran ${count} >> /run/ran; seq 3; sleep 1; echo end`);
      const { stdout, status } = await readToEnd(call, id);
      expect([status, stdout.toString()]).toEqual(['succeeded', '1\n2\n3\nend\n']);
    }
    return count;
  }

  async function ask(vmId: string, isOver: () => boolean): Promise<void> {
    while (!isOver()) {
      await call('whoami');
      await call('list_jobs', { vm_id: vmId });
      await call('list_vm_directory', { vm_id: vmId, path: '/' });
      await pause(20);
    }
  }

  it('fails no call, loses no job, runs none twice, and no log has a gap', async () => {
    const { db } = cluster.stack.database;
    const [busy, ...long] = vms as [string, ...string[]];
    // These run all the time, so that every worker that follows one is told to stop under it.
    const counting =
      'echo begun >> /run/begun; n=0; until [ -e /run/stop ]; do echo $n; n=$((n+1)); sleep 0.05; done';
    const followed = await Promise.all(long.map((vmId) => start(vmId, counting)));
    await eventually(
      async () => (await db.job.count({ where: { id: { in: followed }, state: 'running' } })) === 3,
    );

    let over = false;
    const isOver = () => over;
    const clients = Promise.all([work(busy, isOver), ask(busy, isOver), ask(long[0]!, isOver)]);
    for (const name of cluster.members.keys()) {
      const before = answered;
      await cluster.restart(name);
      await eventually(() => answered > before + 20, { withinMs: 120_000 });
    }
    over = true;
    const [ran] = await clients;
    await Promise.all(long.map((vmId) => put(vmId, '/run/stop')));

    for (const [index, id] of followed.entries()) {
      const { stdout, status } = await readToEnd(call, id);
      const lines = stdout.toString().trimEnd().split('\n');
      expect(status).toBe('succeeded');
      expect(lines).toEqual(lines.map((_line, number) => String(number)));
      expect(await said(long[index]!, 'cat /run/begun')).toBe('begun\n');
    }
    const wanted = Array.from({ length: ran }, (_, number) => `ran ${number}\n`).join('');
    expect(await said(busy, 'cat /run/ran')).toBe(wanted);

    const others = {
      where: { NOT: { state: 'succeeded' as const } },
      select: { kind: true, state: true, error: true, attempts: true },
    };
    expect(await db.job.findMany(others)).toEqual([]);
    const outcomes = await db.jobAttempt.groupBy({ by: ['outcome'], _count: true });
    expect(outcomes.map(({ outcome }) => outcome).sort()).toEqual(['handed_over', 'succeeded']);
    expect(failed).toEqual([]);
  });
});
