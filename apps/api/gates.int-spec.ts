import { SCOPES, createToken, setSwitch, type Scope } from '@longhaul/access';
import { Jobs, type JobKind } from '@longhaul/jobs';
import { defineJobTool, type Tool } from '@longhaul/mcp';
import { newId, type Job, type Vm } from '@longhaul/persistence';
import { vmCommand } from '@longhaul/toolsets/commands/vm-command.job';
import { vmPower } from '@longhaul/toolsets/vms/vm-power.job';
import { z } from 'zod';
import { makeArtifact } from '../../test/support/artifacts.js';
import { makeHost, makeUser, makeVm, testDatabase, type TestDatabase } from '../../test/support/database.js';
import { HandWorker, NoDelivery } from '../../test/support/hand-worker.js';
import { mcpUrl, startTestApi } from '../../test/support/mcp.js';
import { modernRequest } from '../../test/support/tasks.js';
import { TOOL_ARGUMENTS } from '../../test/support/tool-arguments.js';
import { product } from './api.module.js';
import type { ApiServer } from './server.js';

// Every tool of the catalogue against every gate that its declaration puts before it, and the gates in their order.

let test: TestDatabase;
let api: ApiServer;
let jobs: Jobs;

beforeAll(async () => {
  test = await testDatabase();
  jobs = new Jobs(test.db, test.audit, new NoDelivery(), test.changes);
  // One of each a minute: a scene is for one call.
  const limits = { RATE_CALLS: 1, RATE_VM_CALLS: 1, RATE_SUBMISSIONS: 1 };
  api = await startTestApi(test.url, limits, { ...product, tools });
  await makeHost(test.db);
});
afterAll(async () => {
  await api.close();
  await test.drop();
});
afterEach(async () => {
  await test.db.killSwitch.deleteMany();
});

/** With every gate there is: the product has no tool yet that takes a slot and is to be confirmed. */
const confirmedCommand = defineJobTool({
  name: 'confirmed_command',
  title: 'Run a command that is confirmed',
  description: 'For this test',
  toolset: 'commands',
  scope: 'vms:exec',
  annotations: { readOnlyHint: false, destructiveHint: true, idempotentHint: false, openWorldHint: true },
  vm: { running: true, exec: true, slot: 'command' },
  confirmation: { phrase: () => 'RUN IT', message: () => 'Run it?' },
  input: z.strictObject({ vm_id: z.string(), confirmation: z.string().optional() }),
  output: z.object({ job_id: z.string() }),
  answerWithinMs: 0,
  submit: (call) => call.submit(vmCommand, { command: 'true', timeout_seconds: 60 }),
  answer: async ({ id }) => ({ job_id: id }),
});

const tools = [...product.tools, confirmedCommand];

/** All that a call of a tool needs to be let through; a gate takes away what it looks at. */
interface Scene {
  tool: Tool;
  userId: string;
  token: string;
  tokenId: string;
  vm: Vm;
  args: Record<string, unknown>;
}

interface Gate {
  code: string;
  status?: number;
  applies(tool: Tool): boolean;
  fail(scene: Scene): Promise<unknown>;
}

interface Schema {
  type?: string;
  enum?: unknown[];
  minLength?: number;
  minimum?: number;
  items?: Schema;
  required?: string[];
  properties?: Record<string, Schema>;
}

const schemaOf = (tool: Tool) => tool.listed.inputSchema as Schema;
const takes = (tool: Tool, ...names: string[]) =>
  names.some((name) => name in (schemaOf(tool).properties ?? {}));
const requires = (tool: Tool, name: string) => schemaOf(tool).required?.includes(name) ?? false;
const takesJob = (tool: Tool) => takes(tool, 'job_id', 'command_id');
const changes = (tool: Tool) => !tool.listed.annotations?.readOnlyHint;
const always = () => true;
const turn = (name: 'mcp' | 'exec') => setSwitch(test.db, name, true, { actor: 'test' });
const updateUser = ({ userId: id }: Scene, data: object) => test.db.user.update({ where: { id }, data });
const updateVm = ({ vm: { id } }: Scene, data: object) => test.db.vm.update({ where: { id }, data });
const spend = (key: string) =>
  test.db.rateLimit.create({ data: { key, points: 1, expire: Date.now() + 60_000 } });

/** In the order of the pipeline. */
const GATES: Record<string, Gate> = {
  authentication: {
    code: 'unauthenticated',
    status: 401,
    applies: always,
    fail: ({ tokenId: id }) => test.db.token.update({ where: { id }, data: { revokedAt: new Date() } }),
  },
  'the switch mcp': { code: 'switched_off', status: 503, applies: always, fail: () => turn('mcp') },
  'a suspended account': {
    code: 'vm_state_blocked',
    status: 403,
    applies: always,
    fail: (scene) => updateUser(scene, { standing: 'suspended' }),
  },
  'the switch exec': { code: 'switched_off', applies: ({ vm }) => !!vm?.exec, fail: () => turn('exec') },
  'the rate of the caller': {
    code: 'rate_limited',
    applies: always,
    fail: ({ userId }) => spend(`call:${userId}`),
  },
  scope: {
    code: 'forbidden_scope',
    applies: ({ scope }) => scope !== 'any',
    fail: ({ tool, tokenId: id }) =>
      test.db.token.update({
        where: { id },
        data: { scopes: SCOPES.filter((scope) => scope !== tool.scope) },
      }),
  },
  parsing: {
    code: 'invalid_arguments',
    applies: always,
    fail: async ({ args }) => (args.surprise = 1),
  },
  'ownership of the VM': {
    code: 'vm_not_found',
    applies: (tool) => takes(tool, 'vm_id'),
    fail: async ({ args }) => (args.vm_id = (await strangersVm()).id),
  },
  'ownership of the job': {
    code: 'job_not_found',
    applies: takesJob,
    fail: async ({ tool, args }) => Object.assign(args, await jobArguments(tool, await strangersVm())),
  },
  'a flagged account': {
    code: 'vm_state_blocked',
    applies: changes,
    fail: (scene) =>
      test.db.user.updateMany({
        where: { id: scene.userId, standing: 'good' },
        data: { standing: 'flagged' },
      }),
  },
  'the role': {
    code: 'forbidden_role',
    applies: (tool) => changes(tool) && (takes(tool, 'vm_id') || takesJob(tool)),
    fail: ({ userId }) => test.db.projectMember.updateMany({ where: { userId }, data: { role: 'viewer' } }),
  },
  'the state of the VM': {
    code: 'vm_state_blocked',
    applies: ({ vm }) => !!vm?.running,
    fail: (scene) => updateVm(scene, { powerState: 'stopped' }),
  },
  'the rate of the VM': {
    code: 'rate_limited',
    applies: (tool) => takes(tool, 'vm_id'),
    fail: ({ vm }) => spend(`vm:${vm.id}`),
  },
  'execution by the operator': {
    code: 'mcp_exec_disabled',
    applies: ({ vm }) => !!vm?.exec,
    fail: (scene) => updateVm(scene, { execSuspended: true }),
  },
  'execution by the owner': {
    code: 'mcp_exec_disabled',
    applies: ({ vm }) => !!vm?.exec,
    fail: (scene) => updateVm(scene, { execEnabled: false }),
  },
  'the rate of submissions': {
    code: 'rate_limited',
    applies: ({ work }) => 'submit' in work,
    fail: ({ userId }) => spend(`job:${userId}`),
  },
  'the slot of the VM': {
    code: 'vm_command_in_progress',
    applies: ({ vm }) => vm?.slot === 'command',
    fail: ({ vm, userId }) => command(vm, userId),
  },
  'the lifecycle of the VM': {
    code: 'vm_busy',
    applies: ({ vm }) => vm?.slot === 'lifecycle',
    fail: ({ vm, userId }) => submit(vmPower, { action: 'stop' }, vm, userId),
  },
  'what runs in the VM': {
    code: 'vm_command_in_progress',
    applies: ({ vm }) => !!vm?.alone,
    fail: ({ vm, userId }) => command(vm, userId),
  },
  confirmation: {
    code: 'confirmation_required',
    applies: ({ confirmation }) => confirmation !== undefined,
    fail: async ({ args }) => delete args.confirmation,
  },
};

async function strangersVm(): Promise<Vm> {
  return makeVm(test.db, (await makeUser(test.db)).caller);
}

function submit<P>(kind: JobKind<P, unknown>, payload: P, vm: Vm, userId = newId()): Promise<Job> {
  return jobs.submit({ kind, payload, by: { userId }, projectId: vm.projectId, vm });
}

const command = (vm: Vm, userId?: string) =>
  submit(vmCommand, { command: 'true', timeout_seconds: 60 }, vm, userId);

/** A job that waits for the answer to its question `q`, so that every tool has something to do with it. */
async function awaiting(vm: Vm): Promise<Job> {
  const worker = new HandWorker(test);
  const job = await command(vm);
  await worker.ask(await worker.claim(job.id), {
    q: { message: 'Go on?', schema: { type: 'object', properties: {} } },
  });
  return job;
}

const jobArguments = async (tool: Tool, vm: Vm) =>
  takes(tool, 'job_id') ? { job_id: (await awaiting(vm)).id } : { command_id: (await command(vm)).id };

/** The least that a schema takes. */
function valueOf({ type, enum: values, minLength = 0, minimum = 0, items, ...object }: Schema): unknown {
  if (values) return values[0];
  if (type === 'string') return 'k'.repeat(Math.max(minLength, 1));
  if (type === 'integer' || type === 'number') return minimum;
  if (type === 'boolean') return true;
  if (type === 'array') return [valueOf(items ?? {})];
  const { required = [], properties = {} } = object;
  return Object.fromEntries(
    required.map((name) => [name, TOOL_ARGUMENTS[name] ?? valueOf(properties[name] ?? {})]),
  );
}

/** What a tool wants beside what it requires. */
const ALSO: Record<string, object> = { resize_vm: { disk_gb: 20 } };

async function makeKey(userId: string): Promise<string> {
  const data = { id: newId(), userId, name: 'key', publicKey: 'ssh-ed25519 A', fingerprint: 'SHA256:A' };
  return (await test.db.sshKey.create({ data })).id;
}

async function sceneOf(tool: Tool): Promise<Scene> {
  const { caller } = await makeUser(test.db);
  const { id: tokenId, token } = await createToken(test.db, caller.userId, SCOPES as readonly Scope[]);
  const vm = await makeVm(test.db, caller);
  const args = {
    ...(valueOf(schemaOf(tool)) as object),
    ...ALSO[tool.name],
    ...(requires(tool, 'artifact_id') && {
      artifact_id: (await makeArtifact(test, vm, caller.userId)).id,
    }),
    ...(requires(tool, 'ssh_key_id') && { ssh_key_id: await makeKey(caller.userId) }),
    ...(requires(tool, 'artifact_id') && {
      artifact_id: (await makeArtifact(test, vm, caller.userId)).id,
    }),
    ...(takes(tool, 'vm_id') && { vm_id: vm.id }),
    ...(takesJob(tool) && (await jobArguments(tool, vm))),
  };
  const confirmation = tool.confirmation?.phrase({ vm, job: undefined }, args);
  return {
    tool,
    userId: caller.userId,
    token,
    tokenId,
    vm,
    args: { ...args, ...(confirmation && { confirmation }) },
  };
}

async function outcomeOf({ tool, token, args }: Scene): Promise<{ status: number; code?: string }> {
  const request = modernRequest(token, 'tools/call', { name: tool.listed.name, arguments: args });
  const response = await fetch(new URL('/mcp/x/all', mcpUrl(api.port)), request);
  const body = (await response.json()) as {
    code?: string;
    error?: { data: { code: string } };
    result?: { isError?: boolean; content: [{ text: string }] };
  };
  const { status } = response;
  if (body.code ?? body.error) return { status, code: body.code ?? body.error!.data.code };
  if (!body.result?.isError) return { status };
  return {
    status,
    code: (JSON.parse(body.result.content[0].text) as { error: { code: string } }).error.code,
  };
}

describe.each(tools.map((tool) => [tool.name, tool] as const))('%s', (_name, tool) => {
  const gates = Object.entries(GATES).filter(([, gate]) => gate.applies(tool));

  it('is let through when every gate is open', async () => {
    expect(await outcomeOf(await sceneOf(tool))).toEqual({ status: 200 });
  });

  it.each(gates.map(([name], index) => [name, index] as const))('is held up by %s', async (name, index) => {
    const { code, status = 200, fail } = GATES[name]!;
    const alone = await sceneOf(tool);
    await fail(alone);
    expect(await outcomeOf(alone)).toEqual({ status, code });
    const event = await test.db.auditEvent.findFirst({ where: { userId: alone.userId, event: 'call' } });
    if (status !== 401) expect(event).toMatchObject({ result: 'refused', code });

    // Whatever gates behind it say, it is the first.
    const together = await sceneOf(tool);
    for (const [, gate] of gates.slice(index)) await gate.fail(together);
    expect(await outcomeOf(together)).toEqual({ status, code });
  });

  if (takes(tool, 'vm_id', 'job_id', 'command_id')) {
    it.each(['projectIds', 'vmIds'])('does not exist for a token of other %s', async (restriction) => {
      const scene = await sceneOf(tool);
      const other = await strangersVm();
      const data = { [restriction]: [restriction === 'vmIds' ? other.id : other.projectId] };
      await test.db.token.update({ where: { id: scene.tokenId }, data });
      const { code } = await outcomeOf(scene);
      expect(code).toMatch(/^(vm|job)_not_found$/);
    });
  }
});

it('lets no stranger use up what may be done with a VM', async () => {
  const tool = product.tools.find(({ name }) => name === 'get_vm')!;
  const owner = await sceneOf(tool);
  for (let n = 0; n < 3; n++) {
    const stranger = await sceneOf(tool);
    stranger.args.vm_id = owner.vm.id;
    expect(await outcomeOf(stranger)).toMatchObject({ code: 'vm_not_found' });
  }
  expect(await outcomeOf(owner)).toEqual({ status: 200 });
});
