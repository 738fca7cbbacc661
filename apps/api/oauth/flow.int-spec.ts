import { UnauthorizedError, type StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { makeVm } from '../../../test/support/database.js';
import { mcpUrl, testApi } from '../../../test/support/mcp.js';
import { Browser, MemoryProvider, connectByOauth, makePerson } from '../../../test/support/oauth.js';
import { CALLBACK, RawOauth } from '../../../test/support/oauth-raw.js';
import { makeJob } from '../../../test/support/rest-world.js';
import { modernRequest } from '../../../test/support/tasks.js';

const { test, api } = testApi();
let origin: string;

beforeAll(() => {
  origin = `http://127.0.0.1:${api.port}`;
});

it('lets the official client discover, register, be allowed in by a person, call and refresh', async () => {
  const person = await makePerson(test.db);
  const provider = new MemoryProvider(CALLBACK);
  const client = await connectByOauth(mcpUrl(api.port), provider, (asked) =>
    new Browser([origin]).allow(asked, person),
  );
  const answer = await client.callTool({ name: 'whoami', arguments: {} });
  expect(answer.structuredContent).toMatchObject({ email: person.email });
  expect(provider.saved).toMatchObject({
    token_type: 'Bearer',
    expires_in: 3600,
    refresh_token: expect.any(String),
  });
  const { refresh_token: first } = provider.saved!;
  await test.db.oauthState.updateMany({ where: { model: 'AccessToken' }, data: { expiresAt: new Date(0) } });
  expect((await client.callTool({ name: 'whoami', arguments: {} })).structuredContent).toMatchObject({
    email: person.email,
  });
  expect(provider.saved!.refresh_token).not.toBe(first);
  await client.close();
});

it('tells a client which scope it lacks, and the client gets it from the person', async () => {
  const person = await makePerson(test.db);
  const vm = await makeVm(test.db, person);
  const provider = new MemoryProvider(CALLBACK);
  const browser = new Browser([origin]);
  const client = await connectByOauth(mcpUrl(api.port), provider, (asked) =>
    browser.allow(asked, person, (fields) => fields.delete('scopes', 'vms:exec')),
  );
  const call = { name: 'start_vm_command', arguments: { vm_id: vm.id, command: 'true' } };
  await expect(client.callTool(call)).rejects.toThrow(UnauthorizedError);
  expect(provider.asked!.searchParams.get('scope')!.split(' ')).toEqual(
    expect.arrayContaining(['vms:read', 'account:read', 'vms:exec']),
  );
  const callback = await browser.allow(provider.asked!, person);
  await (client.transport as StreamableHTTPClientTransport).finishAuth(callback.searchParams);
  expect((await client.callTool(call)).structuredContent).toMatchObject({ command_id: expect.any(String) });
  const [refused] = await test.db.auditEvent.findMany({
    where: { userId: person.userId, tool: call.name },
    orderBy: { id: 'asc' },
  });
  expect(refused).toMatchObject({ result: 'refused', code: 'forbidden_scope' });
  await client.close();
});

it('answers a call beyond the scopes of a token with 403, and what is needed', async () => {
  const oauth = new RawOauth(origin);
  const { access_token: token } = await oauth.tokens(await makePerson(test.db), { scope: 'vms:read' });
  const answer = await oauth.call(token, 'start_vm_command', { vm_id: 'x', command: 'true' });
  expect(answer).toMatchObject({
    status: 403,
    body: { code: 'forbidden_scope', details: { required_scope: 'vms:exec' } },
  });
  expect(answer.headers.get('www-authenticate')).toBe(
    `Bearer error="insufficient_scope", scope="vms:read vms:exec", resource_metadata="${origin}/.well-known/oauth-protected-resource/mcp"`,
  );
});

it.each(['resources/read', 'tasks/get', 'tasks/cancel', 'tasks/result'])(
  'answers %s beyond the scopes of a token alike, and audits it',
  async (method) => {
    const person = await makePerson(test.db);
    const vm = await makeVm(test.db, person);
    const oauth = new RawOauth(origin);
    const { access_token: all } = await oauth.tokens(person, { scope: 'vms:read vms:exec' });
    const started = await oauth.call(all, 'start_vm_command', { vm_id: vm.id, command: 'true' });
    const { structuredContent } = started.body.result as { structuredContent: { command_id: string } };
    const { access_token: token } = await oauth.tokens(person, { scope: 'account:read' });
    const reads = method === 'resources/read';
    const ask = (params: Record<string, unknown>) =>
      fetch(mcpUrl(api.port), modernRequest(token, method, params));
    const params = reads ? { uri: `longhaul://vms/${vm.id}` } : { taskId: structuredContent.command_id };
    const answer = await ask(params);
    const needed = reads ? 'vms:read' : 'vms:exec';
    expect(answer.status).toBe(403);
    expect(answer.headers.get('www-authenticate')).toContain(
      `Bearer error="insufficient_scope", scope="account:read ${needed}"`,
    );
    expect(await answer.json()).toMatchObject({
      code: 'forbidden_scope',
      details: { required_scope: needed },
    });
    const where = { userId: person.userId, code: 'forbidden_scope' };
    expect(await test.db.auditEvent.findMany({ where })).toMatchObject([
      { result: 'refused', tool: reads ? 'get_vm' : method },
    ]);
    // What is not the caller's is no more told of to who lacks a scope.
    const stranger = await makePerson(test.db);
    const foreign = await makeJob(test, await makeVm(test.db, stranger), stranger);
    if (!reads) expect((await ask({ taskId: foreign.id })).status).not.toBe(403);
  },
);

it('tells who comes without a token where to begin', async () => {
  const answer = await fetch(mcpUrl(api.port), { method: 'POST' });
  expect(answer.status).toBe(401);
  expect(answer.headers.get('www-authenticate')).toBe(
    `Bearer resource_metadata="${origin}/.well-known/oauth-protected-resource/mcp"`,
  );
});
