import { createToken, type Caller } from '@longhaul/access';
import { newId, type Vm } from '@longhaul/persistence';
import { makeUser, makeVm } from '../../test/support/database.js';
import { CLIENTS, call, mcpUrl, refusal, startTestApi, testApi } from '../../test/support/mcp.js';
import { rpc } from '../../test/support/tasks.js';

const { test, api } = testApi();
let token: string;
let userId: string;
let caller: Caller;
let vm: Vm;

beforeEach(async () => {
  const user = await makeUser(test.db);
  token = user.token;
  ({ caller } = user);
  userId = caller.userId;
  vm = await makeVm(test.db, caller, { execEnabled: false });
});

const ELICITATION = { elicitation: {} };
const YES = { action: 'accept', content: { confirm: true } };
const tool = 'set_vm_exec_enabled';
const enable = () => ({ vm_id: vm.id, enabled: true });
const isEnabled = async (id = vm.id) => (await test.db.vm.findUniqueOrThrow({ where: { id } })).execEnabled;
const confirmations = async () => {
  const events = await test.db.auditEvent.findMany({ where: { tool, userId }, orderBy: { id: 'asc' } });
  return events.map(({ result, code, confirmedBy }) => [result, code, confirmedBy]);
};

describe.each(Object.entries(CLIENTS))('%s, which cannot ask anybody', (_name, connectTo) => {
  it('is told the phrase, and sends it', async () => {
    const client = await connectTo(mcpUrl(api.port), token);
    const { code, details } = await refusal(client, tool, enable());
    expect(code).toBe('confirmation_required');
    expect(details).toEqual({ phrase: `ENABLE MCP EXEC ${vm.id}` });
    for (const wrong of [
      `enable mcp exec ${vm.id}`,
      `ENABLE MCP EXEC ${vm.id} `,
      `DISABLE MCP EXEC ${vm.id}`,
    ]) {
      const again = await refusal(client, tool, { ...enable(), confirmation: wrong });
      expect(again.code).toBe('confirmation_required');
    }
    expect(await isEnabled()).toBe(false);
    const args = { ...enable(), confirmation: details!.phrase };
    expect(await call(client, tool, args)).toMatchObject({ vm_id: vm.id, mcp_exec_enabled: true });
    expect(await isEnabled()).toBe(true);
    expect((await confirmations()).at(-1)).toEqual(['ok', null, 'argument']);
    await client.close();
  });

  it('cannot do what only a person may confirm', async () => {
    await test.db.project.update({ where: { id: vm.projectId }, data: { confirmation: 'person' } });
    const client = await connectTo(mcpUrl(api.port), token);
    const args = { ...enable(), confirmation: `ENABLE MCP EXEC ${vm.id}` };
    const { code, details } = await refusal(client, tool, args);
    expect(code).toBe('confirmation_required');
    expect(details).toEqual({ by: 'person' });
    expect(await isEnabled()).toBe(false);
    await client.close();
  });

  it('names the VM by its id', async () => {
    const client = await connectTo(mcpUrl(api.port), token);
    expect((await refusal(client, tool, { ...enable(), vm_id: vm.hostname })).code).toBe('invalid_arguments');
    expect((await refusal(client, tool, { ...enable(), vm_id: newId() })).code).toBe('vm_not_found');
    await client.close();
  });
});

describe('a client that can ask', () => {
  const send = (params: object, { as = token, capabilities = ELICITATION as object } = {}) =>
    rpc(mcpUrl(api.port), as, 'tools/call', { name: tool, arguments: enable(), ...params }, capabilities);
  const state = async () => (await send({})).result!.requestState as string;
  const answer = (requestState: string, response: object = YES) => ({
    requestState,
    inputResponses: { confirmation: response },
  });
  const code = (result: Record<string, unknown> | undefined) =>
    (JSON.parse((result!.content as [{ text: string }])[0].text) as { error: { code: string } }).error.code;

  it('asks a person, whatever the arguments say', async () => {
    const { result } = await send({ arguments: { ...enable(), confirmation: `ENABLE MCP EXEC ${vm.id}` } });
    expect(result).toMatchObject({
      resultType: 'input_required',
      inputRequests: { confirmation: { method: 'elicitation/create' } },
    });
    expect(JSON.stringify(result)).toContain(vm.hostname);
    expect(await isEnabled()).toBe(false);
    const done = await send(answer(await state()));
    expect(done.result).toMatchObject({ structuredContent: { mcp_exec_enabled: true } });
    expect((await confirmations()).slice(-2)).toEqual([
      ['asked', null, null],
      ['ok', null, 'person'],
    ]);
  });

  it('is enough where only a person may confirm', async () => {
    await test.db.project.update({ where: { id: vm.projectId }, data: { confirmation: 'person' } });
    expect((await send(answer(await state()))).result).toMatchObject({ resultType: 'complete' });
    expect(await isEnabled()).toBe(true);
  });

  it.each([
    ['says no', { action: 'accept', content: { confirm: false } }],
    ['declines', { action: 'decline' }],
    ['cancels', { action: 'cancel' }],
  ])('does nothing when the person %s', async (_what, response) => {
    const { result } = await send(answer(await state(), response));
    expect(code(result)).toBe('confirmation_required');
    expect(await isEnabled()).toBe(false);
    expect((await confirmations()).at(-1)).toEqual(['refused', 'confirmation_required', null]);
  });

  it('asks again when the answer has no proper form', async () => {
    for (const response of [{ action: 'accept', content: { confirm: 'yes' } }, { action: 'accept' }, {}]) {
      const { result } = await send(answer(await state(), response));
      expect(result).toMatchObject({ resultType: 'input_required' });
    }
    expect(await isEnabled()).toBe(false);
  });

  it('cannot answer what was not asked', async () => {
    const { result } = await send({ inputResponses: { confirmation: YES } });
    expect(result).toMatchObject({ resultType: 'input_required' });
    expect(await isEnabled()).toBe(false);
  });

  it('uses an answer once', async () => {
    const used = answer(await state());
    expect((await send(used)).result).toMatchObject({ resultType: 'complete' });
    await test.db.vm.update({ where: { id: vm.id }, data: { execEnabled: false } });
    expect(code((await send(used)).result)).toBe('confirmation_required');
    expect(await isEnabled()).toBe(false);
  });

  it('uses an answer once, even when it is sent many times at once', async () => {
    const used = answer(await state());
    const all = await Promise.all(Array.from({ length: 8 }, () => send(used)));
    expect(all.filter(({ result }) => result!.isError !== true)).toHaveLength(1);
  });

  it('cannot use it for anything else', async () => {
    const other = await makeVm(test.db, caller, { hostname: `other-${newId()}`, execEnabled: false });
    const elsewhere = [
      { arguments: { vm_id: vm.id, enabled: false } },
      { arguments: { vm_id: other.id, enabled: true } },
      { name: 'whoami', arguments: {} },
    ];
    for (const call of elsewhere) {
      const { error } = await send({ ...answer(await state()), ...call });
      expect(error).toMatchObject({ code: -32602, message: 'Invalid or expired requestState' });
    }
    expect(await isEnabled(other.id)).toBe(false);
  });

  it('cannot use what another token was given, nor what was tampered with', async () => {
    const given = await state();
    const { token: second } = await createToken(test.db, userId, ['vms:exec']);
    const body = JSON.parse(Buffer.from(given.split('.')[1]!, 'base64url').toString()) as { exp: number };
    const forged = Buffer.from(JSON.stringify({ ...body, exp: body.exp + 9 })).toString('base64url');
    const attempts = [
      await send(answer(given), { as: second }),
      await send(answer(`${given}x`)),
      await send(answer(['v1', forged, given.split('.')[2]].join('.'))),
      await send(answer('')),
      await send(answer('x'.repeat(100_000))),
    ];
    for (const { error } of attempts) {
      expect(error).toMatchObject({ code: -32602, message: 'Invalid or expired requestState' });
    }
    expect(await isEnabled()).toBe(false);
  });

  it('is understood by another replica', async () => {
    const given = await state();
    const replica = await startTestApi(test.url);
    const params = { name: tool, arguments: enable(), ...answer(given) };
    const { result } = await rpc(mcpUrl(replica.port), token, 'tools/call', params, ELICITATION);
    expect(result).toMatchObject({ structuredContent: { mcp_exec_enabled: true } });
    await replica.close();
  });

  it('that knows only pages is told the phrase', async () => {
    const { result } = await send({}, { capabilities: { elicitation: { url: {} } } });
    expect(code(result)).toBe('confirmation_required');
  });
});
