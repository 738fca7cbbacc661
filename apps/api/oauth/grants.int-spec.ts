import { Secrets, StoredSecrets } from '@longhaul/secrets';
import { createMachineClient, revokeGrant, rotateSigningKeys, sweepOauth } from '@longhaul/oauth';
import { newId } from '@longhaul/persistence';
import {
  TEST_SECRETS_KEYS,
  makeVm,
  testDatabase,
  type TestDatabase,
} from '../../../test/support/database.js';
import { startTestApi } from '../../../test/support/mcp.js';
import { makePerson } from '../../../test/support/oauth.js';
import { RawOauth, partOf, type Answer } from '../../../test/support/oauth-raw.js';
import type { ApiServer } from '../server.js';

let test: TestDatabase;
let api: ApiServer;
let origin: string;
let person: Awaited<ReturnType<typeof makePerson>>;
let oauth: RawOauth;

beforeAll(async () => {
  test = await testDatabase();
  api = await startTestApi(test.url);
  origin = `http://127.0.0.1:${api.port}`;
  person = await makePerson(test.db);
});
afterAll(async () => {
  await api.close();
  await test.drop();
});
beforeEach(() => {
  oauth = new RawOauth(origin);
});

const get = async (path: string) => (await fetch(origin + path)).json() as Promise<Record<string, unknown>>;
const content = ({ body }: Answer) =>
  (body.result as { structuredContent?: Record<string, unknown> }).structuredContent!;

describe('metadata', () => {
  it('of the resource names its one audience and its server, below every path', async () => {
    for (const path of ['', '/mcp'])
      expect(await get(`/.well-known/oauth-protected-resource${path}`)).toMatchObject({
        resource: `${origin}/mcp`,
        authorization_servers: [origin],
        scopes_supported: expect.arrayContaining(['vms:exec']),
      });
  });

  it.each(['oauth-authorization-server', 'openid-configuration'])('of the server is %s', async (name) => {
    expect(await get(`/.well-known/${name}`)).toMatchObject({
      issuer: origin,
      authorization_endpoint: `${origin}/oauth/authorize`,
      token_endpoint: `${origin}/oauth/token`,
      registration_endpoint: `${origin}/oauth/register`,
      revocation_endpoint: `${origin}/oauth/revoke`,
      introspection_endpoint: `${origin}/oauth/introspect`,
      jwks_uri: `${origin}/.well-known/jwks.json`,
      code_challenge_methods_supported: ['S256'],
      response_types_supported: ['code'],
      grant_types_supported: expect.arrayContaining([
        'authorization_code',
        'refresh_token',
        'client_credentials',
      ]),
      authorization_response_iss_parameter_supported: true,
      client_id_metadata_document_supported: true,
      scopes_supported: expect.arrayContaining(['openid', 'offline_access', 'vms:exec']),
    });
  });

  it('does not believe the request about where it is', async () => {
    const response = await fetch(`${origin}/.well-known/oauth-authorization-server`, {
      headers: { 'x-forwarded-host': 'evil.example', 'x-forwarded-proto': 'https' },
    });
    expect(await response.text()).not.toContain('evil.example');
  });
});

describe('what a person leaves out', () => {
  it('of the scopes is not in the token', async () => {
    const tokens = await oauth.tokens(person, {
      scope: 'account:read vms:read vms:exec',
      narrow: (fields) => fields.delete('scopes', 'vms:exec'),
    });
    expect(tokens.scope).toBe('vms:read account:read');
    expect(content(await oauth.call(tokens.access_token)).scopes).toEqual(['vms:read', 'account:read']);
    expect(await oauth.refresh(tokens.refresh_token, { scope: 'vms:exec' })).toMatchObject({ status: 400 });
  });

  it('of the projects does not exist for the client', async () => {
    const other = await test.db.project.create({ data: { id: newId(), name: `other-${newId()}` } });
    await test.db.projectMember.create({
      data: { projectId: other.id, userId: person.userId, role: 'owner' },
    });
    const hidden = await makeVm(test.db, { ...person, projectIds: [other.id] });
    const shown = await makeVm(test.db, person);
    const seen = async (token: string) =>
      (content(await oauth.call(token, 'list_vms')).vms as { id: string }[]).map(({ id }) => id);

    const all = await oauth.tokens(person);
    expect((await seen(all.access_token)).sort()).toEqual([hidden.id, shown.id].sort());
    const narrow = (fields: URLSearchParams) => fields.delete('projectIds', other.id);
    const some = await oauth.tokens(person, { narrow });
    expect(await seen(some.access_token)).toEqual([shown.id]);
  });

  it('may not be more than was asked for, or all', async () => {
    await oauth.register();
    const stays = (narrow: (fields: URLSearchParams) => void) =>
      expect(oauth.code(person, { narrow })).rejects.toThrow('no code');
    await stays((fields) => fields.append('scopes', 'vms:exec'));
    await stays((fields) => fields.append('projectIds', newId()));
    await stays((fields) => fields.delete('scopes'));
    await stays((fields) => fields.delete('projectIds'));
    await stays((fields) => fields.set('mark', 'forged'));
    const refused = await oauth
      .code(person, { narrow: (fields) => fields.set('decision', 'refuse') })
      .catch(String);
    expect(refused).toMatch(/error=access_denied.*state=a-state.*iss=/);
    expect(await test.db.oauthGrant.count({ where: { clientId: oauth.clientId } })).toBe(0);
  });

  it('unsaid is not taken for all: a request without scopes of ours is offered what only looks', async () => {
    const tokens = await oauth.tokens(person, { scope: 'openid' });
    // openid says nothing of what the client may do here.
    expect(tokens.scope.split(' ')).toEqual(expect.arrayContaining(['vms:read', 'account:read']));
    expect(tokens.scope).not.toMatch(/exec|power|write/);
  });
});

describe('machines', () => {
  const basic = ({ clientId, clientSecret }: { clientId: string; clientSecret: string }) => ({
    authorization: `Basic ${Buffer.from(`${clientId}:${clientSecret}`).toString('base64')}`,
  });
  const machine = () =>
    createMachineClient(test.db, 'nightly', {
      userId: person.userId,
      scopes: ['vms:read', 'account:read'],
      projectIds: person.projectIds,
    });
  const grant_type = 'client_credentials';

  it('get what they were made with, and no more', async () => {
    const client = await machine();
    const { status, body } = await oauth.post('/oauth/token', { grant_type }, basic(client));
    expect(status).toBe(200);
    expect(body).toMatchObject({ scope: 'vms:read account:read', expires_in: 3600 });
    expect(body).not.toHaveProperty('refresh_token');
    expect(content(await oauth.call(String(body.access_token)))).toMatchObject({ email: person.email });
    const more = await oauth.post('/oauth/token', { grant_type, scope: 'vms:read vms:exec' }, basic(client));
    expect(more.body.scope).toBe('vms:read');
  });

  it('get nothing with another secret, for another audience, or once revoked', async () => {
    const client = await machine();
    const token = (fields: Record<string, string>, with_ = client) =>
      oauth.post('/oauth/token', { grant_type, ...fields }, basic(with_));
    expect(await token({}, { ...client, clientSecret: 'x'.repeat(43) })).toMatchObject({ status: 401 });
    expect(await token({ resource: 'https://elsewhere.example' })).toMatchObject({
      body: { error: 'invalid_target' },
    });
    const { body } = await token({});
    expect(await oauth.call(String(body.access_token))).toMatchObject({ status: 200 });
    expect(await revokeGrant(test.db, client.clientId)).toBe(true);
    expect(await oauth.call(String(body.access_token))).toMatchObject({ status: 401 });
    expect(await token({})).toMatchObject({ status: 401, body: { error: 'invalid_client' } });
  });

  it('have their secret stored as a hash', async () => {
    const client = await machine();
    expect(JSON.stringify(await test.db.oauthState.findMany())).not.toContain(client.clientSecret);
  });
});

describe('introspection', () => {
  it('tells a client of its own tokens, as long as they hold', async () => {
    const { access_token: token, refresh_token: refresh } = await oauth.tokens(person);
    const ask = async (token: string, clientId = oauth.clientId) =>
      (await oauth.post('/oauth/introspect', { token, client_id: clientId })).body;
    expect(await ask(token)).toMatchObject({
      active: true,
      sub: person.userId,
      aud: `${origin}/mcp`,
      iss: origin,
      scope: 'vms:read account:read',
      client_id: oauth.clientId,
    });
    expect(await ask(refresh)).toMatchObject({ active: true });
    const other = new RawOauth(origin);
    await other.register();
    expect(await ask(token, other.clientId)).toEqual({ active: false });
    await oauth.post('/oauth/revoke', { token, client_id: other.clientId });
    expect(await ask(token)).toMatchObject({ active: true });
    await oauth.post('/oauth/revoke', { token: refresh, client_id: oauth.clientId });
    expect(await ask(token)).toEqual({ active: false });
    expect(await ask('nonsense')).toEqual({ active: false });
  });
});

describe('keys', () => {
  it('of two generations are known; what the older has signed still holds', async () => {
    const idToken = async () => {
      const { exchanged } = await withOpenid();
      return { token: String(exchanged.body.id_token), access: String(exchanged.body.access_token) };
    };
    const kids = async () =>
      ((await get('/.well-known/jwks.json')).keys as { kid: string }[]).map(({ kid }) => kid);

    const before = await idToken();
    const [first] = await kids();
    expect(await oauth.subjectOf(before.token)).toBe(person.userId);
    await rotateSigningKeys(
      test.db,
      new StoredSecrets(test.db, new Secrets({ SECRETS_KEYS: TEST_SECRETS_KEYS })),
    );
    await api.close();
    api = await startTestApi(test.url, { PORT: api.port });
    expect(await kids()).toEqual([expect.not.stringMatching(first!), first]);
    expect(await oauth.subjectOf(before.token)).toBe(person.userId);
    expect(await oauth.call(before.access)).toMatchObject({ status: 200 });
    const after = await idToken();
    expect(await oauth.subjectOf(after.token)).toBe(person.userId);
    expect(partOf(after.token, 0).kid).not.toBe(first);
    const keys = await test.db.signingKey.findMany({ where: { name: { startsWith: 'oauth-' } } });
    for (const { key } of keys) expect(key).toMatch(/^v1\./);
  });

  it('show nothing private', async () => {
    for (const key of (await get('/.well-known/jwks.json')).keys as object[])
      expect(Object.keys(key).sort()).toEqual(['alg', 'e', 'kid', 'kty', 'n', 'use']);
  });

  async function withOpenid() {
    oauth = new RawOauth(origin);
    await oauth.register();
    const code = await oauth.code(person, { scope: 'openid vms:read account:read' });
    return { exchanged: await oauth.exchange(code) };
  }
});

it('what one replica gives another takes, and what one ends is over on the other at once', async () => {
  const replica = await startTestApi(test.url, { PUBLIC_URL: origin });
  const there = new RawOauth(`http://127.0.0.1:${replica.port}`);
  try {
    await oauth.register();
    for (let round = 0; round < 20; round++) {
      const code = await oauth.code(person);
      Object.assign(there, { clientId: oauth.clientId, verifier: oauth.verifier });
      const { body } = await there.exchange(code);
      const token = String(body.access_token);
      expect(await oauth.call(token)).toMatchObject({ status: 200 });
      expect(await there.call(token)).toMatchObject({ status: 200 });
      await oauth.post('/oauth/revoke', { token, client_id: oauth.clientId });
      expect(await there.call(token)).toMatchObject({ status: 401 });
      expect(await there.refresh(String(body.refresh_token))).toMatchObject({ status: 400 });
    }
  } finally {
    await replica.close();
  }
});

it('housekeeping deletes what has expired and ends grants that nothing hangs on any more', async () => {
  const { access_token: token } = await oauth.tokens(person);
  const past = new Date(Date.now() - 2 * 86_400_000);
  await test.db.oauthState.updateMany({
    where: { payload: { path: ['clientId'], equals: oauth.clientId } },
    data: { expiresAt: past },
  });
  await test.db.oauthGrant.updateMany({ where: { clientId: oauth.clientId }, data: { createdAt: past } });
  const machine = await createMachineClient(test.db, 'stays', { userId: person.userId, scopes: [] });
  await test.db.oauthGrant.update({ where: { id: machine.clientId }, data: { createdAt: past } });
  await sweepOauth(test.db);
  expect(await oauth.call(token)).toMatchObject({ status: 401 });
  expect(await test.db.oauthState.count({ where: { expiresAt: { lt: new Date() } } })).toBe(0);
  expect(await test.db.oauthGrant.findFirst({ where: { clientId: oauth.clientId } })).toMatchObject({
    revokedAt: expect.any(Date),
  });
  expect(await test.db.oauthGrant.findUnique({ where: { id: machine.clientId } })).toMatchObject({
    revokedAt: null,
  });
});
