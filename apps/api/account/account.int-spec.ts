import { SCOPES, createToken } from '@longhaul/access';
import { newId } from '@longhaul/persistence';
import { makeVm } from '../../../test/support/database.js';
import { testApi } from '../../../test/support/mcp.js';
import { rest, type RestAnswer } from '../../../test/support/rest.js';
import { makeTenant, type Tenant } from '../../../test/support/rest-world.js';

const { test, api } = testApi();
let tenant: Tenant;

beforeEach(async () => {
  tenant = await makeTenant(test);
});

const account = (method: string, path: string, body?: unknown, token = tenant.token): Promise<RestAnswer> =>
  rest(api.port, token, method, `/account/v1${path}`, body);
const makeToken = (body: object, token?: string) => account('POST', '/tokens', body, token);

describe('tokens', () => {
  it('are shown once, work, tell when they were used, and are revoked', async () => {
    const expires_at = new Date(Date.now() + 3_600_000).toISOString();
    const made = await makeToken({ name: 'ci', scopes: ['account:read', 'projects:write'], expires_at });
    const { token, id } = made.json as { token: string; id: string };
    expect(made.json).toMatchObject({
      name: 'ci',
      expires_at,
      last_used_at: null,
      project_ids: [],
      vm_ids: [],
    });
    expect(token.startsWith(made.json.hint)).toBe(true);
    expect((await account('GET', '/me', undefined, token)).json.credential).toMatchObject({
      kind: 'token',
      id,
    });
    const list = await account('GET', '/tokens', undefined, token);
    expect(list.text).not.toContain(token);
    expect(list.json.items.map((item: { id: string }) => item.id)).toEqual([
      id,
      tenant.tokenId,
      tenant.caller.tokenId,
    ]);
    expect((await account('DELETE', `/tokens/${id}`, undefined, token)).json).toMatchObject({
      id,
      revoked_at: expect.any(String),
    });
    expect((await account('GET', '/me', undefined, token)).status).toBe(401);
    const events = await test.db.auditEvent.findMany({ where: { userId: tenant.caller.userId } });
    expect(
      JSON.stringify(events, (_key, value: unknown) => (typeof value === 'bigint' ? String(value) : value)),
    ).not.toContain(token);
  });

  it('make none of more scopes', async () => {
    const scopes = ['account:read', 'projects:write'] as const;
    const { token } = await createToken(test.db, tenant.caller.userId, scopes);
    for (const scope of SCOPES.filter((each) => !scopes.includes(each as (typeof scopes)[number]))) {
      const refused = await makeToken({ scopes: ['account:read', scope] }, token);
      expect(refused.json).toMatchObject({
        status: 403,
        code: 'forbidden_scope',
        details: { required_scopes: [scope] },
      });
    }
    expect((await makeToken({ scopes: ['admin'] }, token)).status).toBe(400);
    expect((await makeToken({ scopes: [] }, token)).status).toBe(400);
    expect((await makeToken({ scopes: [...scopes, ...scopes] }, token)).json.scopes).toEqual(scopes);
  });

  it('make none of more projects, VMs or time', async () => {
    const { caller, projectId, vm } = tenant;
    const other = await test.db.project.create({ data: { id: newId(), name: newId() } });
    await test.db.projectMember.create({
      data: { projectId: other.id, userId: caller.userId, role: 'owner' },
    });
    const otherVm = await makeVm(test.db, caller);
    const expiresAt = new Date(Date.now() + 60_000);
    const own = { projectIds: [projectId], vmIds: [vm.id], expiresAt };
    const { token } = await createToken(test.db, caller.userId, SCOPES, own);
    const scopes = ['vms:read'];
    const inherited = { project_ids: [projectId], vm_ids: [vm.id], expires_at: expiresAt.toISOString() };
    for (const left of [
      {},
      { project_ids: [] },
      { vm_ids: [] },
      { project_ids: [projectId], vm_ids: [vm.id] },
    ])
      expect((await makeToken({ scopes, ...left }, token)).json).toMatchObject(inherited);
    for (const more of [
      { project_ids: [other.id] },
      { project_ids: [projectId, other.id] },
      { vm_ids: [otherVm.id] },
    ])
      expect((await makeToken({ scopes, ...more }, token)).json).toMatchObject({
        status: 404,
        code: 'not_found',
      });
    for (const at of [expiresAt.getTime() + 1, Date.now() - 1])
      expect((await makeToken({ scopes, expires_at: new Date(at).toISOString() }, token)).json).toMatchObject(
        {
          status: 400,
          code: 'invalid_arguments',
        },
      );
    const sooner = new Date(expiresAt.getTime() - 10_000).toISOString();
    expect((await makeToken({ scopes, expires_at: sooner }, token)).json).toMatchObject({
      expires_at: sooner,
    });
  });

  it('of a project that the user has left since are not widened by that', async () => {
    const { caller, projectId } = tenant;
    const { token } = await createToken(test.db, caller.userId, SCOPES, { projectIds: [projectId] });
    await test.db.projectMember.create({ data: { projectId, userId: tenant.strangerId, role: 'owner' } });
    await test.db.projectMember.delete({ where: { projectId_userId: { projectId, userId: caller.userId } } });
    const made = await makeToken({ scopes: ['vms:read'] }, token);
    expect(made.json).toMatchObject({ project_ids: [projectId] });
  });

  it('are so many and no more', async () => {
    const rows = Array.from({ length: 198 }, (_, index) => ({
      id: newId(),
      userId: tenant.caller.userId,
      hash: Buffer.from(`${newId()}${index}`),
      hint: 'lh_',
      scopes: [],
    }));
    await test.db.token.createMany({ data: rows });
    expect((await makeToken({ scopes: ['vms:read'] })).json).toMatchObject({ status: 409, code: 'conflict' });
    await account('DELETE', `/tokens/${rows[0]!.id}`);
    const racing = await Promise.all([1, 2, 3].map(() => makeToken({ scopes: ['vms:read'] })));
    expect(racing.map(({ status }) => status).sort()).toEqual([201, 409, 409]);
  });
});

it('grants are taken back', async () => {
  const revoked = await account('DELETE', `/grants/${tenant.grantId}`);
  expect(revoked.json).toMatchObject({ id: tenant.grantId, revoked_at: expect.any(String) });
  const { items } = (await account('GET', '/grants')).json;
  expect(items).toContainEqual(revoked.json);
  expect(items).toMatchObject([{ id: tenant.machineId, revoked_at: null }, { id: tenant.grantId }]);
});

describe('members', () => {
  const members = (path = '') => `/projects/${tenant.projectId}/members${path}`;
  const tokenOf = async (userId: string) => (await createToken(test.db, userId, SCOPES)).token;
  const roles = (answer: RestAnswer) =>
    Object.fromEntries(
      answer.json.members.map(({ user_id, role }: { user_id: string; role: string }) => [user_id, role]),
    );

  it('are added by address, get other roles, and go', async () => {
    const { strangerId, strangerEmail, caller, memberId } = tenant;
    const body = { email: strangerEmail.toUpperCase(), role: 'member' };
    const added = await account('POST', members(), body);
    expect(roles(added)).toEqual({ [caller.userId]: 'owner', [memberId]: 'viewer', [strangerId]: 'member' });
    expect((await account('POST', members(), body)).json).toMatchObject({ status: 409, code: 'conflict' });
    expect(
      (await account('POST', members(), { ...body, email: `${newId()}@example.test` })).json,
    ).toMatchObject({ code: 'not_found' });
    expect(roles(await account('PATCH', members(`/${strangerId}`), { role: 'admin' }))[strangerId]).toBe(
      'admin',
    );
    expect(roles(await account('DELETE', members(`/${strangerId}`)))[strangerId]).toBeUndefined();
    expect((await account('DELETE', members(`/${strangerId}`))).json).toMatchObject({ code: 'not_found' });
  });

  it('manage others as their role lets them', async () => {
    const { memberId, strangerEmail, strangerId, caller } = tenant;
    const token = await tokenOf(memberId);
    const as = (role: 'owner' | 'admin' | 'member' | 'viewer') =>
      test.db.projectMember.update({
        where: { projectId_userId: { projectId: tenant.projectId, userId: memberId } },
        data: { role },
      });
    const add = (role: string) => account('POST', members(), { email: strangerEmail, role }, token);
    for (const role of ['viewer', 'member'] as const) {
      await as(role);
      expect((await add('viewer')).json).toMatchObject({ status: 403, code: 'forbidden_role' });
      expect((await account('DELETE', members(`/${caller.userId}`), undefined, token)).json).toMatchObject({
        code: 'forbidden_role',
      });
      expect((await account('GET', members(), undefined, token)).status).toBe(200);
    }
    await as('admin');
    expect((await add('owner')).json).toMatchObject({
      code: 'forbidden_role',
      details: { required_role: 'owner' },
    });
    expect((await add('admin')).status).toBe(201);
    for (const [method, body] of [
      ['PATCH', { role: 'viewer' }],
      ['DELETE', undefined],
    ] as const)
      expect((await account(method, members(`/${caller.userId}`), body, token)).json).toMatchObject({
        code: 'forbidden_role',
      });
    const self = await account('PATCH', members(`/${memberId}`), { role: 'owner' }, token);
    expect(self.json).toMatchObject({ code: 'forbidden_role' });
    expect(
      roles(await account('PATCH', members(`/${strangerId}`), { role: 'viewer' }, token))[strangerId],
    ).toBe('viewer');
    expect((await account('DELETE', members(`/${memberId}`), undefined, token)).json).toEqual({
      members: [],
    });
    expect((await account('GET', members(), undefined, token)).json).toMatchObject({ code: 'not_found' });
  });

  it('never lose their last owner', async () => {
    const { caller, memberId } = tenant;
    const leave = (id: string, token: string) => account('DELETE', members(`/${id}`), undefined, token);
    expect((await leave(caller.userId, tenant.token)).json).toMatchObject({ status: 409, code: 'conflict' });
    expect((await account('PATCH', members(`/${caller.userId}`), { role: 'viewer' })).json).toMatchObject({
      status: 409,
    });
    await account('PATCH', members(`/${memberId}`), { role: 'owner' });
    const token = await tokenOf(memberId);
    const both = await Promise.all([leave(caller.userId, tenant.token), leave(memberId, token)]);
    expect(both.map(({ status }) => status).sort()).toEqual([200, 409]);
  });

  it('are none of a token that is for some VMs only', async () => {
    const { token } = await createToken(test.db, tenant.caller.userId, SCOPES, { vmIds: [tenant.vm.id] });
    expect((await account('GET', members(), undefined, token)).json).toMatchObject({ code: 'not_found' });
    const add = { email: tenant.strangerEmail, role: 'owner' };
    expect((await account('POST', members(), add, token)).json).toMatchObject({ code: 'not_found' });
  });
});
