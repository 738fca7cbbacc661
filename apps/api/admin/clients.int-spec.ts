import { newId } from '@longhaul/persistence';
import { makeUser, makeVm } from '../../../test/support/database.js';
import { testApi } from '../../../test/support/mcp.js';
import { RawOauth } from '../../../test/support/oauth-raw.js';
import { makeStaff, rest } from '../../../test/support/rest.js';

const { test, api } = testApi();
let oauth: RawOauth;
let staff: string;
let user: Awaited<ReturnType<typeof makeUser>>;

beforeAll(async () => {
  oauth = new RawOauth(`http://127.0.0.1:${api.port}`);
  ({ token: staff } = await makeStaff(test));
});
beforeEach(async () => {
  user = await makeUser(test.db);
});

const admin = (method: string, path: string, body?: unknown, token = staff) =>
  rest(api.port, token, method, `/admin/v1/clients${path}`, body);

const make = (fields: object = {}) =>
  admin('POST', '', { name: 'nightly', user_id: user.caller.userId, scopes: ['vms:read'], ...fields });

const tokenOf = ({ id, client_secret: secret }: { id: string; client_secret: string }) =>
  oauth.post(
    '/oauth/token',
    { grant_type: 'client_credentials' },
    { authorization: `Basic ${Buffer.from(`${id}:${secret}`).toString('base64')}` },
  );

it('gets tokens for what it was made with, until it is revoked', async () => {
  const [shown, hidden] = [await makeVm(test.db, user.caller), await makeVm(test.db, user.caller)];
  const { json: client, status } = await make({ vm_ids: [shown.id] });
  expect(status).toBe(201);
  const { body } = await tokenOf(client);
  const token = String(body.access_token);
  const listed = await oauth.call(token, 'list_vms');
  expect(JSON.stringify(listed.body)).toContain(shown.id);
  expect(JSON.stringify(listed.body)).not.toContain(hidden.id);
  expect((await oauth.call(token, 'start_vm_command', { vm_id: shown.id, command: 'true' })).status).toBe(
    403,
  );
  const revoked = await admin('DELETE', `/${client.id}`);
  expect(revoked.json).toMatchObject({ id: client.id, revoked_at: expect.any(String) });
  expect(await oauth.call(token, 'list_vms')).toMatchObject({ status: 401 });
  expect(await tokenOf(client)).toMatchObject({ status: 401, body: { error: 'invalid_client' } });
  expect((await admin('DELETE', `/${client.id}`)).json).toEqual(revoked.json);
});

it('has a secret that is shown once, and is stored and audited nowhere', async () => {
  const { json: client } = await make();
  const listed = await admin('GET', `?user_id=${user.caller.userId}`);
  expect(listed.json.items).toMatchObject([{ id: client.id, client_name: 'nightly', revoked_at: null }]);
  expect((await admin('GET', `?user_id=${user.caller.userId}&revoked=true`)).json.items).toEqual([]);
  const [kept] = await test.db.$queryRaw<{ text: string }[]>`
    SELECT (SELECT string_agg(s::text, ' ') FROM oauth_state s) || (SELECT string_agg(g::text, ' ') FROM oauth_grants g)
      || (SELECT string_agg(e::text, ' ') FROM audit_events e) AS text`;
  for (const text of [listed.text, kept!.text]) {
    expect(text).toContain(client.id);
    expect(text).not.toContain(client.client_secret);
  }
});

it('is for what its user has, and for staff to make', async () => {
  const other = await makeUser(test.db);
  const vm = await makeVm(test.db, other.caller);
  for (const foreign of [
    { user_id: newId() },
    { project_ids: other.caller.projectIds },
    { vm_ids: [vm.id] },
    { vm_ids: [newId()] },
  ])
    expect((await make(foreign)).json).toMatchObject({ status: 404, code: 'not_found' });
  expect((await make({ scopes: [] })).json).toMatchObject({ status: 400, code: 'invalid_arguments' });
  expect((await admin('GET', '', undefined, user.token)).json).toMatchObject({ code: 'forbidden_staff' });
});

it('is no grant of a person, whom this does not end', async () => {
  const grant = await test.db.oauthGrant.create({
    data: { id: newId(), userId: user.caller.userId, clientId: 'https://a.example', scopes: ['vms:read'] },
  });
  expect((await admin('DELETE', `/${grant.id}`)).status).toBe(404);
  expect((await admin('GET', `?user_id=${user.caller.userId}`)).json.items).toEqual([]);
});
