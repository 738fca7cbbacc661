import { createToken } from '@longhaul/access';
import { makeUser, makeVm } from '../../test/support/database.js';
import { call, connect, mcpUrl, refusal, testApi } from '../../test/support/mcp.js';
import { modernRequest } from '../../test/support/tasks.js';

const { test, api } = testApi();
let user: Awaited<ReturnType<typeof makeUser>>;

beforeEach(async () => {
  user = await makeUser(test.db);
});

const url = () => mcpUrl(api.port);

async function send(authorization: string) {
  const { headers, ...rest } = modernRequest('', 'tools/call', { name: 'whoami', arguments: {} });
  const response = await fetch(url(), { ...rest, headers: { ...headers, authorization } });
  return { status: response.status, body: (await response.json()) as Record<string, unknown> };
}

const basic = (email: string, token: string) =>
  `Basic ${Buffer.from(`${email}:${token}`).toString('base64')}`;

it('takes a token as the password of its user', async () => {
  const { status, body } = await send(basic(user.caller.email, user.token));
  expect(status).toBe(200);
  expect(body).toMatchObject({ result: { structuredContent: { token_id: user.caller.tokenId } } });
});

it.each([
  ['of somebody else', () => basic('other@example.test', user.token)],
  ['without a user', () => basic('', user.token)],
  ['without a colon', () => `Basic ${Buffer.from(user.token).toString('base64')}`],
  ['that is no base64', () => 'Basic %%%'],
  ['with a wrong token', () => basic(user.caller.email, `lh_${'a'.repeat(43)}`)],
  ['that is no credential', () => 'Digest x'],
  ['of an unknown kind', () => 'Bearer eyJhbGciOiJub25lIn0.e30.'],
])('refuses a header %s', async (_what, header) => {
  expect(await send(header())).toMatchObject({ status: 401, body: { code: 'unauthenticated' } });
});

it('shows a token of one VM that VM and its jobs, and nothing else', async () => {
  const [mine, other] = [await makeVm(test.db, user.caller), await makeVm(test.db, user.caller)];
  const all = await connect(url(), user.token);
  const start = async (vmId: string) => {
    const { command_id: id } = await call(all, 'start_vm_command', { vm_id: vmId, command: 'true' });
    return id as string;
  };
  const [shown, hidden] = [await start(mine.id), await start(other.id)];
  const { token } = await createToken(test.db, user.caller.userId, user.caller.scopes, { vmIds: [mine.id] });
  const client = await connect(url(), token);
  expect(await call(client, 'list_vms')).toMatchObject({ vms: [{ id: mine.id }] });
  const { jobs } = await call<{ jobs: { job_id: string }[] }>(client, 'list_jobs');
  expect(jobs.map(({ job_id }) => job_id)).toEqual([shown]);
  for (const tool of ['get_job', 'cancel_job', 'wait_for_job'])
    expect(await refusal(client, tool, { job_id: hidden })).toMatchObject({ code: 'job_not_found' });
  expect(await refusal(client, 'list_jobs', { vm_id: other.id })).toMatchObject({ code: 'vm_not_found' });
  expect(await refusal(client, 'get_vm', { vm_id: other.hostname })).toMatchObject({ code: 'vm_not_found' });
  const uris = await fetch(
    url(),
    modernRequest(token, 'resources/read', { uri: `longhaul://jobs/${hidden}` }),
  );
  expect(await uris.json()).toMatchObject({ error: { code: expect.any(Number) } });
  await client.close();
  await all.close();
});

it('refuses a suspended account, and tells it so', async () => {
  await test.db.user.update({ where: { id: user.caller.userId }, data: { standing: 'suspended' } });
  expect(await send(`Bearer ${user.token}`)).toMatchObject({
    status: 403,
    body: { code: 'vm_state_blocked', message: expect.stringContaining('suspended') },
  });
});
