import { newId, type Vm } from '@longhaul/persistence';
import { catalog } from '../../test/conformance/fixtures/catalog.js';
import { makeUser, makeVm } from '../../test/support/database.js';
import { eventually } from '../../test/support/eventually.js';
import { HandWorker } from '../../test/support/hand-worker.js';
import { mcpUrl, testApi } from '../../test/support/mcp.js';
import { OLDER_LINE, firstEventOf, messagesOf, openSession } from '../../test/support/sessions.js';
import { z } from 'zod';

const { test, api } = testApi({ MCP_SESSIONS: 'true' }, catalog);
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

const url = () => mcpUrl(api.port);
const tool = (name: string, args: Record<string, unknown> = {}, id: number | string = 1) => ({
  id,
  method: 'tools/call',
  params: { name, arguments: args },
});
const exec = (id?: number) => tool('exec_vm_command', { vm_id: vm.id, command: 'make' }, id);
const jobOf = () => eventually(() => test.db.job.findFirst({ where: { vmId: vm.id } }));

describe.each(OLDER_LINE)('%s', (_name, connect) => {
  it('has a person confirm, through the client', async () => {
    let says = true;
    const asked: string[] = [];
    const client = await connect(url(), token, {
      elicit({ message }) {
        asked.push(message);
        return { action: 'accept', content: { confirm: says } };
      },
    });
    const disable = { name: 'set_vm_exec_enabled', arguments: { vm_id: vm.id, enabled: false } };
    expect(await client.callTool(disable)).toMatchObject({ structuredContent: { mcp_exec_enabled: false } });
    expect(asked).toEqual([expect.stringContaining(vm.hostname)]);
    says = false;
    const refused = await client.callTool({ ...disable, arguments: { vm_id: vm.id, enabled: true } });
    expect(refused).toMatchObject({ isError: true });
    expect(JSON.stringify(refused.content)).toContain('confirmation_required');
    const events = await test.db.auditEvent.findMany({ where: { vmId: vm.id, event: 'call' } });
    expect(events.map(({ confirmedBy }) => confirmedBy)).toContain('person');
    await client.close();
  });

  it('asks the model and for the roots of the client', async () => {
    const reply = { role: 'assistant', content: { type: 'text', text: 'forty-two' }, model: 'm' };
    const client = await connect(url(), token, {
      sample: () => reply,
      roots: () => ({ roots: [{ uri: 'file:///project' }] }),
    });
    const sampled = await client.callTool({ name: 'test_sampling', arguments: { prompt: 'What?' } });
    expect(JSON.stringify(sampled.content)).toContain('forty-two');
    const rooted = await client.callTool({ name: 'test_input_required_result_list_roots', arguments: {} });
    expect(JSON.stringify(rooted.content)).toContain('file:///project');
    await client.close();
  });

  it('sends log messages, from the level on that the client wants', async () => {
    const data: unknown[] = [];
    const client = await connect(url(), token, {
      notified: ({ method, params }) => method === 'notifications/message' && data.push(params!.data),
    });
    await client.setLoggingLevel('warning');
    await client.callTool({ name: 'test_tool_with_logging', arguments: {} });
    expect(data).toEqual([]);
    await client.setLoggingLevel('info');
    await client.callTool({ name: 'test_tool_with_logging', arguments: {} });
    expect(data).toHaveLength(3);
    await client.close();
  });

  it('cancels the job of a command whose caller takes it back', async () => {
    const client = await connect(url(), token);
    const controller = new AbortController();
    const { method, params } = exec();
    const answer = client.request({ method, params }, z.looseObject({}), { signal: controller.signal });
    const { id } = await jobOf();
    controller.abort();
    await expect(answer).rejects.toThrow();
    await eventually(async () => (await test.db.job.findUnique({ where: { id } }))?.state === 'cancelled');
    await client.close();
  });
});

describe('a session', () => {
  it('ends with DELETE', async () => {
    const session = await openSession(url(), token);
    expect((await session.send({ id: 1, method: 'ping' })).status).toBe(200);
    expect((await session.send(undefined, { method: 'DELETE' })).status).toBe(200);
    expect((await session.send({ id: 2, method: 'ping' })).status).toBe(404);
    expect((await session.send(undefined, { method: 'DELETE' })).status).toBe(404);
  });

  it('is of one token: to any other it does not exist', async () => {
    const session = await openSession(url(), token);
    const other = await openSession(url(), (await makeUser(test.db)).token);
    const headers = { 'mcp-session-id': session.id };
    for (const method of ['POST', 'GET', 'DELETE']) {
      const message = method === 'POST' ? { id: 1, method: 'ping' } : undefined;
      expect((await other.send(message, { method, headers })).status).toBe(404);
      const unknown = { 'mcp-session-id': newId() };
      expect((await other.send(message, { method, headers: unknown })).status).toBe(404);
    }
    expect((await session.send({ id: 1, method: 'ping' })).status).toBe(200);
    await test.db.token.updateMany({ data: { revokedAt: new Date() } });
    expect((await session.send({ id: 2, method: 'ping' })).status).toBe(401);
  });

  it('is needed for all but initialize', async () => {
    const { send } = await openSession(url(), token);
    const headers = { 'mcp-session-id': '' };
    expect((await send({ id: 1, method: 'ping' }, { headers })).status).toBe(404);
    const response = await fetch(url(), {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/list' }),
    });
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({
      error: { message: expect.stringContaining('initialize') },
    });
  });

  it('sees the tools that each request names', async () => {
    const { send } = await openSession(url(), token);
    const list = { id: 1, method: 'tools/list' };
    const [message] = await messagesOf(await send(list, { headers: { 'x-mcp-toolsets': 'account' } }));
    expect(message).toMatchObject({ result: { tools: [{ name: 'whoami' }] } });
  });

  it('goes on with a request whose connection is lost, and answers it to who comes back', async () => {
    const { send } = await openSession(url(), token);
    const controller = new AbortController();
    const response = await send(exec(), { signal: controller.signal });
    const eventId = await firstEventOf(response);
    const { id } = await jobOf();
    controller.abort();
    const ref = await worker.claim(id);
    expect((await test.db.job.findUnique({ where: { id } }))?.cancelRequestedAt).toBeNull();
    await worker.finish(ref, { state: 'succeeded', result: { exit_code: 0, duration_ms: 1 } });
    const messages = await eventually(async () => {
      const again = await send(undefined, { method: 'GET', headers: { 'last-event-id': eventId } });
      return messagesOf(again);
    });
    expect(messages).toMatchObject([{ id: 1, result: { structuredContent: { status: 'succeeded' } } }]);
  });

  it('has no more requests under way than it may', async () => {
    const { send } = await openSession(url(), token);
    const waiting = (id: number) => tool('wait_for_job', { job_id: jobId, timeout_seconds: 50 }, id);
    const [started] = await messagesOf(
      await send(tool('start_vm_command', { vm_id: vm.id, command: 'make' }, 'start')),
    );
    const jobId = (started as { result: { structuredContent: { command_id: string } } }).result
      .structuredContent.command_id;
    const answers = await Promise.all(Array.from({ length: 80 }, (_, id) => send(waiting(id))));
    const under = answers.filter(({ status }) => status === 200);
    expect(under).toHaveLength(64);
    expect((await send(waiting(99))).status).toBe(429);
    const requestId = answers.indexOf(under[5]!);
    const cancel = { method: 'notifications/cancelled', params: { requestId } };
    expect((await send(cancel)).status).toBe(202);
    expect(await messagesOf(under[5]!)).toEqual([]);
    const next = await eventually(async () => {
      const response = await send(waiting(100));
      return response.ok && response;
    });
    await worker.finish(await worker.claim(jobId), { state: 'cancelled' });
    for (const response of [next, ...under.filter((one) => one !== under[5])])
      expect(await messagesOf(response)).toHaveLength(1);
  });

  it('makes room for a new one when nobody uses it, but not while a stream is open', async () => {
    const sessions = await Promise.all(Array.from({ length: 16 }, () => openSession(url(), token)));
    const streams = await Promise.all(
      sessions.slice(1).map(({ send }) => send(undefined, { method: 'GET' })),
    );
    const latest = await openSession(url(), token);
    expect((await sessions[0]!.send({ id: 1, method: 'ping' })).status).toBe(404);
    streams.push(await latest.send(undefined, { method: 'GET' }));
    await expect(openSession(url(), token)).rejects.toThrow('429');
    await Promise.all(streams.map((stream) => stream.body!.cancel()));
    await eventually(() => openSession(url(), token).catch(() => undefined));
  });

  it('is one of a few, however many begin at once', async () => {
    const sessions = await Promise.allSettled(Array.from({ length: 40 }, () => openSession(url(), token)));
    const alive = sessions.map(async (session) => {
      if (session.status === 'rejected') return 0;
      return (await session.value.send({ id: 1, method: 'ping' })).status;
    });
    expect((await Promise.all(alive)).filter((status) => status === 200)).toHaveLength(16);
  });
});
