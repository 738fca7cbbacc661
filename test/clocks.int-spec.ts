import { join } from 'node:path';
import type { Vm } from '@longhaul/persistence';
import { endOf, sha256, type Call } from './e2e/stack.js';
import { Cluster } from './support/cluster.js';
import { expectOneRun, hasPrinted, startCounted } from './support/counted.js';
import { eventually } from './support/eventually.js';
import { namespaceAgentLacks } from './support/namespace-agent.js';
import { rpc, type RpcAnswer } from './support/tasks.js';

// Of two APIs and two workers one each has a clock an hour fast, the other one an hour slow; each test sees them change places.

const HOUR = 3_600;
const CLOCKS = { 'api-1': HOUR, 'api-2': -HOUR, 'worker-1': HOUR, 'worker-2': -HOUR };
const lacks = namespaceAgentLacks();
const onCluster = lacks ? describe.skip : describe;

onCluster(`processes with wrong clocks${lacks ? `, not tested here, as that needs ${lacks}` : ''}`, () => {
  let cluster: Cluster;
  let call: Call;
  let vm: Vm;

  beforeAll(async () => {
    const shift = `--import=${join(import.meta.dirname, 'support/shift-clock.mjs')}`;
    cluster = await Cluster.start({
      workers: 2,
      swift: false,
      env: { RATE_CALLS: '0', JOB_LEASE_SECONDS: '4' },
    });
    for (const [name, seconds] of Object.entries(CLOCKS)) {
      const { env } = cluster.members.get(name)!;
      Object.assign(env, { NODE_OPTIONS: shift, TEST_CLOCK_SECONDS: String(seconds) });
      await cluster.restart(name);
    }
    ({ vm } = await cluster.addAgentVm({}, { commandSlots: 10 }));
    call = await cluster.stack.clientV2(undefined, '/x/all');
  });
  afterAll(() => cluster?.stop());
  /** What was fast is slow from now on, by two hours at once. */
  const jump = () => Object.keys(CLOCKS).forEach((name) => cluster.signal(name, 'SIGUSR2'));
  afterEach(jump);

  const db = () => cluster.stack.database.db;
  const origin = (api: string) => `http://127.0.0.1:${cluster.members.get(api)!.env.PORT}`;
  const ask = (api: string, params: Record<string, unknown>, capabilities: object = {}): Promise<RpcAnswer> =>
    rpc(new URL(`${origin(api)}/mcp/x/all`), cluster.stack.token, 'tools/call', params, capabilities);
  const BOTH_WAYS = [
    ['api-1', 'api-2'],
    ['api-2', 'api-1'],
  ] as const;
  const secondsOff = (time: Date | string, now: Date) =>
    Math.abs(new Date(time).getTime() - now.getTime()) / 1000;

  it('run each command once, to its end, while clocks jump', async () => {
    const commands = await Promise.all([1, 2, 3, 4].map(() => startCounted(call, vm.id, 20)));
    for (const command of commands) await eventually(() => hasPrinted(call, command), { withinMs: 90_000 });
    jump();
    for (const command of commands) await expectOneRun(call, command);
    const ids = commands.map(({ id }) => id);
    const jobs = await db().job.findMany({ where: { id: { in: ids } } });
    expect(jobs.map(({ attempt }) => attempt)).toEqual([1, 1, 1, 1]);
    const now = await db().now();
    for (const { createdAt, startedAt, finishedAt } of jobs)
      for (const time of [createdAt, startedAt!, finishedAt!])
        expect(secondsOff(time, now)).toBeLessThan(HOUR / 2);
  });

  it('look at VMs as often as they should, and say when', async () => {
    const times = async () => {
      const { observed, observedAt } = await db().vm.findUniqueOrThrow({ where: { id: vm.id } });
      const { agent_seen_at: seen } = (observed ?? {}) as { agent_seen_at?: string };
      return seen ? [observedAt!.toISOString(), seen] : undefined;
    };
    // By either of the two.
    for (let looks = 0; looks < 2; looks++) {
      const before = await eventually(times, { withinMs: 60_000 });
      for (const time of before) expect(secondsOff(time, await db().now())).toBeLessThan(HOUR / 2);
      await eventually(async () => (await times())!.every((time, index) => time > before[index]!), {
        withinMs: 60_000,
      });
    }
  });

  it.each(BOTH_WAYS)('let a file in that %s has announced to %s, and install it', async (first, second) => {
    const bytes = Buffer.from(first);
    const facts = { filename: 'f', size_bytes: bytes.length, sha256: sha256(bytes), purpose: 'file' };
    const { result } = await ask(first, {
      name: 'create_artifact_upload',
      arguments: { vm_id: vm.id, ...facts },
    });
    const upload = result!.structuredContent as Record<'url' | 'artifact_id' | 'expires_at', string>;
    const left = new Date(upload.expires_at).getTime() - (await db().now()).getTime();
    expect(Math.round(left / 60_000)).toBe(15);
    const { pathname, search } = new URL(upload.url);
    const headers = { 'content-type': 'application/octet-stream' };
    const put = await fetch(`${origin(second)}${pathname}${search}`, { method: 'PUT', headers, body: bytes });
    expect(put.status).toBe(204);
    const { artifact_id } = upload;
    expect((await ask(second, { name: 'get_artifact', arguments: { artifact_id } })).result).toMatchObject({
      structuredContent: { state: 'uploaded' },
    });
    const install = { vm_id: vm.id, artifact_id, destination_path: `/run/${first}` };
    expect(await endOf(call, await call('install_artifact', install))).toMatchObject({ status: 'succeeded' });
  });

  it.each(BOTH_WAYS)('take a confirmation that %s has asked for at %s, once', async (first, second) => {
    const params = { name: 'set_vm_exec_enabled', arguments: { vm_id: vm.id, enabled: true } };
    const asked = await ask(first, params, { elicitation: {} });
    const { requestState } = asked.result as { requestState: string };
    const inputResponses = { confirmation: { action: 'accept', content: { confirm: true } } };
    const answered = { ...params, requestState, inputResponses };
    expect((await ask(second, answered, { elicitation: {} })).result).toMatchObject({
      structuredContent: { mcp_exec_enabled: true },
    });
    // As the hourly clean-up does.
    await db().$executeRaw`DELETE FROM used_request_states WHERE expires_at < now()`;
    const again = await ask(second, answered, { elicitation: {} });
    expect(JSON.stringify(again)).toContain('has been used');
  });

  it.each(BOTH_WAYS)('let in whom %s has given a token of ten minutes at %s', async (first, second) => {
    const expires_at = new Date((await db().now()).getTime() + 600_000).toISOString();
    const made = await fetch(`${origin(first)}/account/v1/tokens`, {
      method: 'POST',
      headers: { authorization: `Bearer ${cluster.stack.token}`, 'content-type': 'application/json' },
      body: JSON.stringify({ scopes: ['vms:read'], expires_at }),
    });
    expect(made.status).toBe(201);
    const { token } = JSON.parse(await made.text()) as { token: string };
    for (const api of [first, second])
      expect(
        (await rpc(new URL(`${origin(api)}/mcp`), token, 'tools/call', { name: 'whoami', arguments: {} }, {}))
          .status,
      ).toBe(200);
  });
});
