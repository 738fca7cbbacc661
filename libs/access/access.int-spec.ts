import { AppError } from '@longhaul/errors';
import { newId } from '@longhaul/persistence';
import { makeUser, makeVm, testDatabase, type TestDatabase } from '../../test/support/database.js';
import { eventually } from '../../test/support/eventually.js';
import { Access, createToken, projectFor, requireChange, type Caller } from './index.js';

let test: TestDatabase;
let access: Access;
let caller: Caller;
let token: string;

beforeAll(async () => {
  test = await testDatabase();
  access = new Access(test.db);
});
afterAll(() => test.drop());
beforeEach(async () => {
  ({ caller, token } = await makeUser(test.db));
});

const withToken = async (options: Parameters<typeof createToken>[3]) => {
  const issued = await createToken(test.db, caller.userId, ['vms:read'], options);
  return { ...issued, caller: (await access.authenticate(issued.token))! };
};

async function joinProject(role: 'owner' | 'viewer'): Promise<string> {
  const { id } = await test.db.project.create({ data: { id: newId(), name: newId() } });
  await test.db.projectMember.create({ data: { projectId: id, userId: caller.userId, role } });
  return id;
}

const daysAgo = (days: number) => new Date(Date.now() - days * 86_400_000);
const update = (data: object) => test.db.token.update({ where: { id: caller.tokenId }, data });

describe('a developer token', () => {
  it('says who calls, in which projects and roles', async () => {
    const viewed = await joinProject('viewer');
    const now = (await access.authenticate(token))!;
    expect(now).toMatchObject({ kind: 'token', staff: false, standing: 'good', switches: {} });
    expect(now.roles).toEqual({ [caller.projectIds[0]!]: 'owner', [viewed]: 'viewer' });
    expect([...now.projectIds].sort()).toEqual(Object.keys(now.roles).sort());
    expect(now.vmIds).toBeUndefined();
  });

  it('shows no more than the projects and VMs that it is restricted to', async () => {
    const second = await joinProject('owner');
    const mine = await makeVm(test.db, caller);
    const other = await makeVm(test.db, caller);
    const inProject = await withToken({ projectIds: [second] });
    expect(inProject.caller.projectIds).toEqual([second]);
    await expect(access.resolveVm(inProject.caller, mine.id)).rejects.toMatchObject({ code: 'vm_not_found' });
    const onVm = await withToken({ vmIds: [mine.id] });
    expect(await access.listVms(onVm.caller, 10)).toMatchObject([{ id: mine.id }]);
    expect(await access.resolveVm(onVm.caller, mine.hostname)).toMatchObject({ id: mine.id });
    await expect(access.resolveVm(onVm.caller, other.id)).rejects.toMatchObject({ code: 'vm_not_found' });
    expect(() => projectFor(onVm.caller)).toThrow(AppError);
  });

  it('opens nothing of others, whatever it is restricted to', async () => {
    const stranger = await makeUser(test.db);
    const theirs = await makeVm(test.db, stranger.caller);
    const { caller } = await withToken({ projectIds: stranger.caller.projectIds, vmIds: [theirs.id] });
    expect(caller.projectIds).toEqual([]);
    await expect(access.resolveVm(caller, theirs.id)).rejects.toMatchObject({ code: 'vm_not_found' });
  });

  it('is dead once it is revoked, has expired or was not used for 90 days', async () => {
    for (const data of [
      { revokedAt: new Date() },
      { expiresAt: new Date(Date.now() - 1) },
      { lastUsedAt: daysAgo(91) },
      { lastUsedAt: null, createdAt: daysAgo(91) },
    ]) {
      const alive = { revokedAt: null, expiresAt: null, lastUsedAt: new Date(), createdAt: daysAgo(200) };
      await update(alive);
      expect(await access.authenticate(token)).toBeDefined();
      await update(data);
      expect(await access.authenticate(token)).toBeUndefined();
      expect(await access.renew(caller)).toBeUndefined();
    }
  });

  it('notes its use, at most once an hour', async () => {
    const lastUse = async () =>
      (await test.db.token.findUnique({ where: { id: caller.tokenId } }))?.lastUsedAt;
    await update({ lastUsedAt: daysAgo(1) });
    await access.authenticate(token);
    await eventually(async () => (await lastUse())! > daysAgo(0.01));
    const noted = await lastUse();
    await access.authenticate(token);
    expect(await lastUse()).toEqual(noted);
  });

  it('is a password for its own user only', async () => {
    const basic = await access.authenticateBasic(caller.email.toUpperCase(), token);
    expect(basic).toMatchObject({ kind: 'basic', tokenId: caller.tokenId });
    expect(await access.authenticateBasic('other@example.test', token)).toBeUndefined();
  });
});

describe('a grant of OAuth', () => {
  const grant = async (data = {}) => {
    const id = newId();
    const scopes = ['vms:read', 'vms:exec'];
    await test.db.oauthGrant.create({
      data: { id, userId: caller.userId, clientId: 'client', scopes, ...data },
    });
    return id;
  };
  const soon = () => new Date(Date.now() + 60_000);

  it('allows what both the token and the grant do', async () => {
    const vm = await makeVm(test.db, caller);
    const id = await grant({ vmIds: [vm.id] });
    const token = { scopes: ['vms:exec', 'vms:power'], expiresAt: soon() };
    const now = (await access.authenticateGrant(id, token))!;
    expect(now).toMatchObject({ kind: 'oauth', tokenId: id, clientId: 'client', scopes: ['vms:exec'] });
    expect(now.vmIds).toEqual([vm.id]);
    expect(await access.renew(now)).toEqual({ ...now, seenAt: expect.any(Date) });
    await test.db.oauthGrant.update({ where: { id }, data: { revokedAt: new Date() } });
    expect(await access.authenticateGrant(id, token)).toBeUndefined();
    expect(await access.renew(now)).toBeUndefined();
  });

  it('is nothing for a token that has ended', async () => {
    const token = { scopes: ['vms:exec'], expiresAt: new Date(Date.now() - 1) };
    expect(await access.authenticateGrant(await grant(), token)).toBeUndefined();
  });
});

it('answers each of many that ask at once', async () => {
  const users = await Promise.all(Array.from({ length: 20 }, () => makeUser(test.db)));
  const asked = [...users, { token: 'lh_nobody', caller: undefined }];
  const found = await Promise.all(asked.map(({ token }) => access.authenticate(token)));
  expect(found.map((each) => each?.userId)).toEqual(asked.map(({ caller }) => caller?.userId));
});

it('knows accounts and switches as they are now', async () => {
  await test.db.user.update({ where: { id: caller.userId }, data: { standing: 'flagged', staff: true } });
  await test.db.killSwitch.create({ data: { name: 'mcp', engaged: true, reason: 'attack', actor: 'test' } });
  const now = (await access.authenticate(token))!;
  expect(now).toMatchObject({ staff: true, standing: 'flagged', switches: { mcp: 'attack' } });
  expect(await access.renew(caller)).toBeUndefined();
  expect(() => requireChange(now)).toThrow(/flagged/);
  await test.db.killSwitch.update({ where: { name: 'mcp' }, data: { engaged: false } });
  expect(await access.renew(caller)).toMatchObject({ switches: {} });
});

it('lets a viewer change nothing', async () => {
  const projectId = await joinProject('viewer');
  const now = (await access.authenticate(token))!;
  expect(() => requireChange(now, projectId)).toThrow(expect.objectContaining({ code: 'forbidden_role' }));
  expect(() => requireChange(now, caller.projectIds[0])).not.toThrow();
  expect(projectFor(now)).toBe(caller.projectIds[0]);
});
