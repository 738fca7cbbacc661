import { newId, type Job, type Vm } from '@longhaul/persistence';
import type { z } from 'zod';
import { makeArtifact } from '../../test/support/artifacts.js';
import { makeUser, makeVm } from '../../test/support/database.js';
import { HandWorker } from '../../test/support/hand-worker.js';
import { mcpUrl, testApi } from '../../test/support/mcp.js';
import { rpc } from '../../test/support/tasks.js';
import { TOOL_ARGUMENTS } from '../../test/support/tool-arguments.js';
import { catalog } from '../../libs/toolsets/catalog.js';

const { test, api } = testApi();
let owner: Awaited<ReturnType<typeof makeUser>>;
let stranger: typeof owner;
let vm: Vm;
let asking: string;
let keyId: string;
let artifactId: string;

beforeAll(async () => {
  owner = await makeUser(test.db);
  stranger = await makeUser(test.db);
  vm = await makeVm(test.db, owner.caller, { hostname: 'payroll', commandSlots: 3 });
  artifactId = (await makeArtifact(test, vm, owner.caller.userId)).id;
  const worker = new HandWorker(test);
  const start = async (command: string) => {
    const { result } = await call('start_vm_command', { vm_id: vm.id, command }, owner.token);
    return result!.taskId as string;
  };
  const running = await worker.claim(await start('secret-one'));
  await worker.write(running, 'stdout', Buffer.from('secret output'));
  asking = await start('secret-two');
  const schema = { type: 'object' as const, properties: { sure: { type: 'boolean' } } };
  await worker.ask(await worker.claim(asking), { q: { message: 'secret question', schema } });
  const key = { name: 'secret key', public_key: TOOL_ARGUMENTS.public_key };
  const { result: added } = await call('add_ssh_key', key, owner.token);
  keyId = (added!.structuredContent as { ssh_key_id: string }).ssh_key_id;
  artifactId = (await makeArtifact(test, vm, owner.caller.userId, { filename: 'secret' })).id;
  const done = await worker.claim(await start('secret-three'));
  await worker.finish(done, { state: 'succeeded', result: { exit_code: 0, duration_ms: 1 } });
});

const call = (name: string, args: object, token = stranger.token) =>
  rpc(new URL('/mcp/x/all', mcpUrl(api.port)), token, 'tools/call', { name, arguments: args });
const send = (method: string, params: object) => rpc(mcpUrl(api.port), stranger.token, method, { ...params });

const IDS = ['vm_id', 'job_id', 'command_id', 'cursor', 'project_id', 'ssh_key_id', 'artifact_id'];

interface InputSchema {
  properties?: Record<string, z.core.JSONSchema.BaseSchema>;
  required?: string[];
}

const cases = catalog.flatMap((tool) => {
  const { properties = {}, required = [] } = tool.listed.inputSchema as InputSchema;
  const others = required.filter((name) => !IDS.includes(name));
  return IDS.filter((name) => name in properties).map((argument) => {
    const args = Object.fromEntries(others.map((name) => [name, TOOL_ARGUMENTS[name]]));
    return [tool.name, argument, args] as const;
  });
});

const jobs = (): Promise<Job[]> => test.db.job.findMany({ orderBy: { id: 'asc' } });
const OWNED: Record<string, () => string[]> = {
  vm_id: () => [vm.id, vm.hostname, vm.hostname.slice(0, 4)],
  project_id: () => [vm.projectId],
  ssh_key_id: () => [keyId],
  artifact_id: () => [artifactId],
};
const owned = async (argument: string) => OWNED[argument]?.() ?? (await jobs()).map(({ id }) => id);

it('has a sample of every argument', () => {
  for (const [, , args] of cases) expect(Object.values(args)).not.toContain(undefined);
});

it.each(cases)('%s finds nothing by the %s of another tenant', async (name, argument, args) => {
  const before = JSON.stringify([await jobs(), await test.db.vm.findMany()]);
  const absent = newId();
  const nothing = JSON.stringify(await call(name, { ...args, [argument]: absent })).replaceAll(absent, 'ID');
  expect(nothing).toMatch(/not_found|invalid_arguments/);
  for (const id of await owned(argument)) {
    const answer = JSON.stringify(await call(name, { ...args, [argument]: id })).replaceAll(id, 'ID');
    // What is refused by its form is refused for that reason to everybody.
    if (!answer.includes('invalid_arguments')) expect(answer).toBe(nothing);
    expect(answer).not.toContain('secret');
  }
  expect(JSON.stringify([await jobs(), await test.db.vm.findMany()])).toBe(before);
});

it.each(
  catalog
    .filter(({ listed }) => !(listed.inputSchema as InputSchema).required?.length)
    .map(({ name }) => name),
)('%s lists nothing of another tenant', async (name) => {
  const answer = JSON.stringify(await call(name, {}));
  for (const hidden of ['secret', vm.id, vm.hostname, vm.projectId]) expect(answer).not.toContain(hidden);
});

it('resources, completion and tasks show nothing of another tenant', async () => {
  const [first] = await jobs();
  const uris = (job: string, machine: string) => [
    `longhaul://vms/${machine}`,
    `longhaul://jobs/${job}`,
    `longhaul://jobs/${job}/logs/stdout`,
  ];
  const foreign = uris(first!.id, vm.id);
  const absent = uris(newId(), newId());
  for (const [index, uri] of foreign.entries()) {
    const answer = await send('resources/read', { uri });
    const nothing = await send('resources/read', { uri: absent[index] });
    expect(JSON.stringify(answer).replaceAll(uri, 'URI')).toBe(
      JSON.stringify(nothing).replaceAll(absent[index]!, 'URI'),
    );
  }
  const argument = { name: 'job_id', value: '' };
  const ref = { type: 'ref/resource', uri: 'longhaul://jobs/{job_id}' };
  const seen = [
    await send('resources/list', {}),
    await send('completion/complete', { ref, argument }),
    await send('tasks/get', { taskId: asking }),
    await send('tasks/update', { taskId: asking, inputResponses: { q: { action: 'decline' } } }),
    await send('tasks/cancel', { taskId: asking }),
  ];
  for (const hidden of ['secret', vm.id, vm.hostname]) expect(JSON.stringify(seen)).not.toContain(hidden);
  expect((await test.db.job.findUniqueOrThrow({ where: { id: asking } })).state).toBe('awaiting_input');
});

it('the audit of all that names nothing of another tenant, as who reads it may be the stranger', async () => {
  const events = await test.db.auditEvent.findMany({ where: { userId: stranger.caller.userId } });
  expect(events.length).toBeGreaterThan(cases.length);
  for (const { projectId, vmId, jobId } of events)
    expect([projectId, vmId, jobId]).toEqual([null, null, null]);
});
