import { newId } from '@longhaul/persistence';
import { makeUser, testDatabase, type TestDatabase } from '../../../test/support/database.js';
import { connect, mcpUrl, refusal, startTestApi } from '../../../test/support/mcp.js';
import { makeStaff, rest } from '../../../test/support/rest.js';
import { makeJob, makeTenant, type Tenant } from '../../../test/support/rest-world.js';
import type { ApiServer } from '../server.js';

let test: TestDatabase;
let api: ApiServer;
let replica: ApiServer;
let staff: string;
let tenant: Tenant;

beforeAll(async () => {
  test = await testDatabase();
  api = await startTestApi(test.url);
  replica = await startTestApi(test.url);
});
afterAll(async () => {
  await api.close();
  await replica.close();
  await test.drop();
});
beforeEach(async () => {
  ({ token: staff } = await makeStaff(test));
  tenant = await makeTenant(test);
});

const admin = (method: string, path: string, body?: unknown) =>
  rest(api.port, staff, method, `/admin/v1${path}`, body);
/** The tenant's own view of an account, through another replica. */
const me = (token = tenant.token) => rest(replica.port, token, 'GET', '/account/v1/me');

describe('users', () => {
  it('are suspended, flagged and restored, from their next request on and on every replica', async () => {
    const set = (standing: string) => admin('PATCH', `/users/${tenant.caller.userId}`, { standing });
    expect((await set('suspended')).json).toMatchObject({ standing: 'suspended' });
    expect((await me()).json).toMatchObject({ status: 403, code: 'vm_state_blocked' });
    await set('flagged');
    expect((await me()).status).toBe(200);
    await set('good');
    expect((await me()).json).toMatchObject({ standing: 'good' });
    expect((await set('banned')).json).toMatchObject({
      status: 400,
      details: { faults: [{ at: 'standing' }] },
    });
  });

  it('become staff and are it no longer, but never by themselves', async () => {
    const { caller, token } = await makeUser(test.db);
    const look = () => rest(replica.port, token, 'GET', '/admin/v1/users');
    await admin('PATCH', `/users/${caller.userId}`, { staff: true });
    expect((await look()).status).toBe(200);
    const own = await rest(api.port, token, 'PATCH', `/admin/v1/users/${caller.userId}`, { staff: false });
    expect(own.json).toMatchObject({ status: 409, code: 'conflict' });
    await admin('PATCH', `/users/${caller.userId}`, { staff: false });
    expect((await look()).json).toMatchObject({ code: 'forbidden_staff' });
  });

  it('have an address of their own in whatever case, and a password that nobody sees again', async () => {
    const email = `Somebody.${newId()}@Example.test`;
    const body = { email, password: 'correct horse battery' };
    const made = await admin('POST', '/users', body);
    expect(made.json).toMatchObject({ email: email.toLowerCase(), staff: false, standing: 'good' });
    expect(made.text).not.toMatch(/argon2|password|horse/);
    expect((await admin('POST', '/users', body)).json).toMatchObject({ status: 409, code: 'conflict' });
    const shown = await admin('GET', `/users/${made.json.id}`);
    expect(shown.text).not.toMatch(/argon2|password/);
    const event = await test.db.auditEvent.findFirst({
      where: { tool: 'admin POST /admin/v1/users', result: 'ok' },
    });
    expect(event!.arguments).toMatchObject({ password: '[redacted]', email: email.toLowerCase() });
    const listed = await admin('GET', `/users?email=${encodeURIComponent(email)}`);
    expect(listed.json).toEqual({ items: [made.json] });
  });

  it('come page by page, each once', async () => {
    const seen: string[] = [];
    for (let query = 'limit=3'; query;) {
      const { json } = await admin('GET', `/users?${query}`);
      seen.push(...json.items.map(({ id }: { id: string }) => id));
      query = json.next ? `limit=3&after=${encodeURIComponent(json.next)}` : '';
    }
    const all = await test.db.user.findMany({ select: { id: true } });
    expect(seen.sort()).toEqual(all.map(({ id }) => id).sort());
    for (const bad of ['after=x', 'after=1.x', 'limit=0', 'limit=201', 'limit=1&limit=2', 'limit=1e9'])
      expect((await admin('GET', `/users?${bad}`)).json).toMatchObject({
        status: 400,
        code: 'invalid_arguments',
      });
  });
});

describe('projects', () => {
  it('keep an owner, whoever leaves at the same time', async () => {
    const { projectId, caller, strangerId } = tenant;
    const member = (id: string) => `/projects/${projectId}/members/${id}`;
    expect((await admin('DELETE', member(caller.userId))).json).toMatchObject({
      status: 409,
      code: 'conflict',
    });
    expect((await admin('PUT', member(caller.userId), { role: 'admin' })).status).toBe(409);
    await admin('PUT', member(strangerId), { role: 'owner' });
    const both = await Promise.all([caller.userId, strangerId].map((id) => admin('DELETE', member(id))));
    expect(both.map(({ status }) => status).sort()).toEqual([200, 409]);
    expect(await test.db.projectMember.count({ where: { projectId, role: 'owner' } })).toBe(1);
  });

  it('have a customer and a policy of confirmation', async () => {
    const body = { customer: 'Müller & Co', confirmation: 'person' };
    expect((await admin('PATCH', `/projects/${tenant.projectId}`, body)).json).toMatchObject(body);
    const listed = await admin('GET', `/projects?customer=${encodeURIComponent(body.customer)}`);
    expect(listed.json.items).toMatchObject([{ id: tenant.projectId }]);
    const cleared = await admin('PATCH', `/projects/${tenant.projectId}`, { customer: null });
    expect(cleared.json).toMatchObject({ customer: null, confirmation: 'person' });
    const { name } = cleared.json;
    const double = await admin('POST', '/projects', { name, owner_id: tenant.caller.userId });
    expect(double.json).toMatchObject({ status: 409, code: 'conflict' });
  });
});

describe('limits of a project', () => {
  it('are shown with what is used of them, and hold from the next call on', async () => {
    const path = `/projects/${tenant.projectId}`;
    const vms = await test.db.vm.count({ where: { projectId: tenant.projectId } });
    const wanted = {
      vm_limit: vms,
      cpu_limit: 7,
      memory_limit_mb: 4096,
      disk_limit_gb: 70,
      live_job_limit: 9,
      concurrency: 3,
    };
    expect((await admin('PATCH', path, wanted)).json).toMatchObject(wanted);
    const shown = await admin('GET', path);
    expect(shown.json).toMatchObject({
      ...wanted,
      used: { vm_limit: vms, live_job_limit: expect.any(Number), concurrency: expect.any(Number) },
    });
    const event = { tool: 'admin PATCH /admin/v1/projects/{id}', projectId: tenant.projectId, result: 'ok' };
    expect((await test.db.auditEvent.findFirstOrThrow({ where: event })).arguments).toMatchObject(wanted);
    await admin('PATCH', path, { customer: 'x' });
    expect((await admin('GET', path)).json).toMatchObject(wanted);
  });

  it.each([
    { vm_limit: -1 },
    { cpu_limit: 1.5 },
    { memory_limit_mb: '1' },
    { disk_limit_gb: 2 ** 31 },
    { live_job_limit: null },
    { concurrency: 0 },
  ])('are not %j', async (body) => {
    const path = `/projects/${tenant.projectId}`;
    const before = (await admin('GET', path)).json;
    expect((await admin('PATCH', path, body)).json).toMatchObject({
      status: 400,
      details: { faults: [{ at: Object.keys(body)[0] }] },
    });
    expect((await admin('GET', path)).json).toEqual(before);
  });
});

describe('credentials', () => {
  it('are revoked for the next request on every replica, and once', async () => {
    const { tokenId } = tenant.caller;
    expect((await me()).status).toBe(200);
    const first = await admin('DELETE', `/tokens/${tokenId}`);
    expect((await me()).status).toBe(401);
    expect((await admin('DELETE', `/tokens/${tokenId}`)).json).toEqual(first.json);
    const listed = await admin('GET', `/tokens?user_id=${tenant.caller.userId}&revoked=true`);
    expect(listed.json.items).toMatchObject([{ id: tokenId, hint: expect.stringMatching(/^lh_.{4}$/) }]);
    expect(listed.text).not.toContain('hash');
    const grant = await admin('DELETE', `/grants/${tenant.grantId}`);
    expect(grant.json).toMatchObject({ id: tenant.grantId, revoked_at: expect.any(String) });
    const { revokedAt } = await test.db.oauthGrant.findUniqueOrThrow({ where: { id: tenant.grantId } });
    expect(revokedAt).not.toBeNull();
  });
});

describe('VMs', () => {
  it('run no command while staff has suspended that', async () => {
    const client = await connect(mcpUrl(replica.port), tenant.token);
    const path = `/vms/${tenant.vm.id}`;
    expect((await admin('PATCH', path, { exec_suspended: true })).json).toMatchObject({
      exec_suspended: true,
    });
    const error = await refusal(client, 'start_vm_command', { vm_id: tenant.vm.id, command: 'true' });
    expect(error.code).toMatch(/exec/);
    await admin('PATCH', path, { exec_suspended: false });
    const result = await client.callRaw('start_vm_command', { vm_id: tenant.vm.id, command: 'true' });
    expect(result.isError).toBeFalsy();
    await client.close();
  });
});

describe('kill switches', () => {
  afterEach(() => test.db.killSwitch.deleteMany());

  it('close MCP on every replica, with their reason, and not what is for staff', async () => {
    const set = (engaged: boolean) => admin('PUT', '/switches/mcp', { engaged, reason: 'an incident' });
    const call = () =>
      rest(replica.port, tenant.token, 'POST', '/mcp', { jsonrpc: '2.0', id: 1, method: 'ping' });
    expect((await set(true)).json).toMatchObject({
      name: 'mcp',
      engaged: true,
      actor: expect.stringContaining('@'),
    });
    expect((await call()).json).toMatchObject({ code: 'switched_off', details: { reason: 'an incident' } });
    expect((await admin('GET', '/switches')).json.items).toMatchObject([
      { name: 'mcp', engaged: true },
      { name: 'exec', engaged: false },
    ]);
    expect((await me()).status).toBe(200);
    expect((await set(false)).json).toMatchObject({ engaged: false });
    expect((await call()).json?.code).not.toBe('switched_off');
  });

  it('cancel the commands there are when asked to', async () => {
    const { vm, caller } = tenant;
    const values = {
      state: 'queued' as const,
      finishedAt: null,
      exec: true,
      deadlineAt: new Date(Date.now() + 60_000),
    };
    const { id } = await makeJob(test, vm, caller, values);
    const stateOf = async () => (await test.db.job.findUniqueOrThrow({ where: { id } })).state;
    await admin('PUT', '/switches/exec', { engaged: true });
    expect(await stateOf()).toBe('queued');
    await admin('PUT', '/switches/exec', { engaged: true, cancel_commands: true });
    expect(await stateOf()).toBe('cancelled');
    expect((await admin('PUT', '/switches/other', { engaged: true })).json).toMatchObject({
      code: 'not_found',
    });
  });
});
