import { newId, type Vm } from '@longhaul/persistence';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { Client as OlderClient } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport as OlderTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { makeUser, makeVm } from '../../test/support/database.js';
import { HandWorker } from '../../test/support/hand-worker.js';
import { mcpUrl, testApi } from '../../test/support/mcp.js';

const { test, api } = testApi();
let worker: HandWorker;
let token: string;
let vm: Vm;

beforeAll(() => {
  worker = new HandWorker(test);
});
beforeEach(async () => {
  const user = await makeUser(test.db);
  token = user.token;
  vm = await makeVm(test.db, user.caller);
});

const init = (bearer: string) => ({ requestInit: { headers: { authorization: `Bearer ${bearer}` } } });

async function newer(mode: 'legacy' | 'auto', bearer = token): Promise<Client> {
  const client = new Client({ name: 'newer', version: '1' }, { versionNegotiation: { mode } });
  await client.connect(new StreamableHTTPClientTransport(mcpUrl(api.port), init(bearer)));
  return client;
}

async function older(bearer = token): Promise<Client> {
  const client = new OlderClient({ name: 'older', version: '1' });
  await client.connect(new OlderTransport(mcpUrl(api.port), init(bearer)));
  return client as unknown as Client;
}

const CLIENTS: [string, (bearer?: string) => Promise<Client>][] = [
  ['SDK v1', older],
  ['SDK v2, 2025-11-25', (bearer) => newer('legacy', bearer)],
  ['SDK v2, 2026-07-28', (bearer) => newer('auto', bearer)],
];

async function command(client: Client, output: Buffer): Promise<string> {
  const started = await client.callTool({
    name: 'start_vm_command',
    arguments: { vm_id: vm.id, command: 'make' },
  });
  const { command_id: id } = started.structuredContent as { command_id: string };
  const ref = await worker.claim(id);
  await worker.write(ref, 'stdout', output);
  return id;
}

async function read(client: Client, uri: string) {
  const { contents } = await client.readResource({ uri });
  return contents[0] as { uri: string; mimeType: string; text?: string; blob?: string };
}

describe.each(CLIENTS)('%s', (_name, connect) => {
  it('finds templates, completes their arguments and reads VMs, jobs and logs', async () => {
    const client = await connect();
    const { resourceTemplates } = await client.listResourceTemplates();
    expect(resourceTemplates.map(({ uriTemplate }) => uriTemplate)).toEqual([
      'longhaul://vms/{vm_id}',
      'longhaul://jobs/{job_id}',
      'longhaul://jobs/{job_id}/logs/{stream}',
    ]);
    const id = await command(client, Buffer.from('hello\n'));

    expect(JSON.parse((await read(client, `longhaul://vms/${vm.id}`)).text!)).toMatchObject({
      hostname: vm.hostname,
    });
    expect(JSON.parse((await read(client, `longhaul://jobs/${id}`)).text!)).toMatchObject({
      status: 'running',
    });
    expect(await read(client, `longhaul://jobs/${id}/logs/stdout`)).toMatchObject({
      mimeType: 'text/plain',
      text: 'hello\n',
    });

    const complete = async (uri: string, name: string, value: string) =>
      (await client.complete({ ref: { type: 'ref/resource', uri }, argument: { name, value } })).completion
        .values;
    expect(await complete('longhaul://vms/{vm_id}', 'vm_id', vm.id.slice(0, 3))).toEqual([vm.id]);
    expect(await complete('longhaul://jobs/{job_id}', 'job_id', '')).toEqual([id]);
    expect(await complete('longhaul://jobs/{job_id}/logs/{stream}', 'stream', 'std')).toEqual([
      'stdout',
      'stderr',
    ]);
    expect(await complete('longhaul://nothing/{x}', 'x', '')).toEqual([]);
    const { resources } = await client.listResources();
    expect(resources.map(({ uri }) => uri)).toEqual([`longhaul://vms/${vm.id}`]);
    await client.close();
  });

  it('answers what is not there, not theirs or no URI of ours alike, and audits who asked', async () => {
    const client = await connect();
    const id = await command(client, Buffer.from([0xff, 0xfe]));
    expect(await read(client, `longhaul://jobs/${id}/logs/stdout`)).toMatchObject({ blob: '//4=' });

    const stranger = await connect((await makeUser(test.db)).token);
    const uris = [
      `longhaul://jobs/${id}`,
      `longhaul://jobs/${newId()}`,
      `longhaul://vms/${vm.id}`,
      'longhaul://vms/a/b',
      'file:///etc/passwd',
    ];
    for (const uri of uris) await expect(stranger.readResource({ uri })).rejects.toThrow(/not found/i);
    expect(
      await test.db.auditEvent.findFirst({ where: { tool: 'get_job', code: 'job_not_found' } }),
    ).not.toBeNull();
    await Promise.all([client.close(), stranger.close()]);
  });

  it('gives prompts with their arguments filled in', async () => {
    const client = await connect();
    const { prompts } = await client.listPrompts();
    expect(prompts.map(({ name }) => name)).toEqual(['run_and_watch', 'diagnose_vm', 'deploy_and_verify']);
    const { messages } = await client.getPrompt({
      name: 'run_and_watch',
      arguments: { vm: 'web-1', command: 'make all' },
    });
    expect(JSON.stringify(messages)).toContain('make all');
    await expect(client.getPrompt({ name: 'run_and_watch', arguments: { vm: 'web-1' } })).rejects.toThrow(
      /command/,
    );
    await client.close();
  });
});
