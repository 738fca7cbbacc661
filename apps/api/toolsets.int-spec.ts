import { makeUser } from '../../test/support/database.js';
import { CLIENTS, call, mcpUrl, testApi } from '../../test/support/mcp.js';
import { catalog, toolsets } from '../../libs/toolsets/catalog.js';

const { test, api } = testApi();

type Headers = Record<string, string>;
const at = (path: string) => new URL(path, mcpUrl(api.port));
const names = (shown: (tool: (typeof catalog)[number]) => boolean) =>
  catalog.filter(shown).map(({ name }) => name);
const reads = ({ listed }: (typeof catalog)[number]) => listed.annotations!.readOnlyHint!;

const vms = names(({ toolset }) => toolset === 'vms');
const commands = names(({ toolset }) => toolset === 'commands');
const vmsRead = names((tool) => tool.toolset === 'vms' && reads(tool));
const commandsRead = names((tool) => tool.toolset === 'commands' && reads(tool));
const everything = names(() => true);
const readByDefault = names((tool) => reads(tool) && toolsets[tool.toolset as keyof typeof toolsets].default);

const SELECTIONS: [string, Headers, string[]][] = [
  ['/mcp?toolsets=vms,commands', {}, [...vms, ...commands]],
  ['/mcp?toolsets=commands,vms', {}, [...vms, ...commands]],
  ['/mcp?toolsets=all', {}, everything],
  ['/mcp', { 'X-MCP-Toolsets': 'vms, commands' }, [...vms, ...commands]],
  ['/mcp/x/vms', {}, vms],
  ['/mcp/x/vms,commands', {}, [...vms, ...commands]],
  ['/mcp/x/all', {}, everything],
  ['/mcp?read_only=true', {}, readByDefault],
  ['/mcp', { 'X-MCP-Readonly': 'true' }, readByDefault],
  ['/mcp/readonly', {}, readByDefault],
  ['/mcp/x/vms,commands/readonly', {}, [...vmsRead, ...commandsRead]],
  ['/mcp/x/vms,commands?toolsets=commands', { 'X-MCP-Readonly': 'true' }, commandsRead],
  ['/mcp/x/vms', { 'X-MCP-Toolsets': 'commands' }, []],
];

describe.each(Object.entries(CLIENTS))('%s', (_client, connectTo) => {
  it.each(SELECTIONS)('%s with %j shows %j', async (path, headers, expected) => {
    const { token } = await makeUser(test.db);
    const client = await connectTo(at(path), token, headers);
    expect((await client.tools()).map(({ name }) => name)).toEqual(expected);
    await client.close();
  });

  it.each<[string, Headers]>([
    ['/mcp/x/vms', {}],
    ['/mcp?toolsets=vms', {}],
    ['/mcp', { 'X-MCP-Toolsets': 'vms' }],
    ['/mcp/readonly', {}],
  ])('%s with %j knows no other tool, and audits that it was called', async (path, headers) => {
    const { token, caller } = await makeUser(test.db);
    const client = await connectTo(at(path), token, headers);
    const refused = client.callRaw('start_vm_command', { vm_id: 'x', command: 'true' });
    await expect(refused).rejects.toMatchObject({ code: -32602, data: { code: 'unknown_tool' } });
    const event = await test.db.auditEvent.findFirst({ where: { userId: caller.userId, event: 'call' } });
    expect(event).toMatchObject({ tool: 'start_vm_command', code: 'unknown_tool', result: 'refused' });
    expect(await call(client, 'list_vms')).toEqual({ vms: [] });
    await client.close();
  });

  it('adds nothing to what the token may do', async () => {
    const { token } = await makeUser(test.db, ['vms:read']);
    const client = await connectTo(at('/mcp?toolsets=all'), token);
    const allowed = names(({ scope }) => scope === 'any' || scope === 'vms:read');
    expect((await client.tools()).map(({ name }) => name)).toEqual(allowed);
    expect(await client.callRaw('start_vm_command', { vm_id: 'x', command: 'true' })).toMatchObject({
      isError: true,
      content: [{ text: expect.stringContaining('forbidden_scope') }],
    });
    await client.close();
  });
});

const post = (path: string, headers: Headers, body: object) =>
  fetch(at(path), {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      ...headers,
    },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, ...body }),
  });

describe('over HTTP', () => {
  let authorization: string;
  beforeAll(async () => {
    authorization = `Bearer ${(await makeUser(test.db)).token}`;
  });

  it.each<[string, Headers, RegExp]>([
    ['/mcp?toolsets=vms,nope', {}, /"nope"; known are account, vms/],
    ['/mcp', { 'X-MCP-Toolsets': 'nope' }, /"nope"/],
    ['/mcp/x/nope', {}, /"nope"/],
    ['/mcp/x/readonly', {}, /"readonly"/],
    [`/mcp/x/${'x'.repeat(10_000)}`, {}, /1024 characters/],
    ['/mcp?toolsets=vms&toolsets=commands', {}, /once/],
    ['/mcp?toolset=vms', {}, /"toolset"/],
    ['/mcp?read_only=yes', {}, /true or false/],
    ['/mcp', { 'X-MCP-Readonly': 'yes' }, /true or false/],
  ])('%s with %j is refused', async (path, headers, message) => {
    const answer = await post(path, { authorization, ...headers }, { method: 'tools/list' });
    expect(answer.status).toBe(400);
    expect(await answer.json()).toMatchObject({
      code: 'invalid_arguments',
      message: expect.stringMatching(message),
      retryable: false,
    });
  });

  it.each([
    '/mcp',
    '/mcp/readonly',
    '/mcp/x/vms',
    '/mcp/x/nope',
    '/mcp/x/vms/readonly',
    '/mcp?toolsets=nope',
  ])('%s asks for a token first', async (path) => {
    for (const method of ['GET', 'POST', 'DELETE'])
      expect((await fetch(at(path), { method })).status).toBe(401);
  });

  it.each(['/mcp/x', '/mcp/x/', '/mcp/x/vms/all'])('%s is nowhere', async (path) => {
    expect((await post(path, { authorization }, { method: 'tools/list' })).status).toBe(404);
  });

  it('says how long the list of tools holds, and that it is the own one', async () => {
    const meta = {
      'io.modelcontextprotocol/protocolVersion': '2026-07-28',
      'io.modelcontextprotocol/clientInfo': { name: 'test', version: '1' },
      'io.modelcontextprotocol/clientCapabilities': {},
    };
    const headers = {
      authorization,
      'mcp-protocol-version': '2026-07-28',
      'mcp-method': 'tools/list',
    };
    const answer = await post('/mcp/x/vms', headers, { method: 'tools/list', params: { _meta: meta } });
    const text = await answer.text();
    const { result } = JSON.parse(text.replace(/^[^{]*/, '')) as { result: Record<string, unknown> };
    expect(result).toMatchObject({ ttlMs: 300_000, cacheScope: 'private' });
    expect(result.tools).toHaveLength(vms.length);
  });
});
