import { createHash } from 'node:crypto';
import { eventually } from '../../../test/support/eventually.js';
import { testApi } from '../../../test/support/mcp.js';
import { Browser, makePerson } from '../../../test/support/oauth.js';
import { CALLBACK, RawOauth } from '../../../test/support/oauth-raw.js';

const { test, api } = testApi({ OAUTH_REGISTRATIONS: 1000 });
let origin: string;
let person: Awaited<ReturnType<typeof makePerson>>;
let oauth: RawOauth;

beforeAll(async () => {
  origin = `http://127.0.0.1:${api.port}`;
  person = await makePerson(test.db);
});
beforeEach(async () => {
  oauth = new RawOauth(origin);
  await oauth.register();
});

const browser = () => new Browser([origin]);
const jwt = (header: object, claims: object, signature = '') =>
  [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.') +
  `.${signature}`;

async function expectRefused(token: string) {
  const answer = await oauth.call(token);
  expect(answer).toMatchObject({ status: 401, body: { code: 'unauthenticated' } });
  expect(answer.headers.get('www-authenticate')).toBe(
    `Bearer error="invalid_token", resource_metadata="${origin}/.well-known/oauth-protected-resource/mcp"`,
  );
}

describe('access tokens', () => {
  it.each([
    ['malformed', 'not-a-token'],
    ['unsigned', jwt({ alg: 'none' }, { sub: 'x', aud: 'x', scope: 'vms:exec' })],
    ['signed by somebody', jwt({ alg: 'RS256' }, { sub: 'x' }, 'c2lnbmF0dXJl')],
    ['as long as a header may be', 'x'.repeat(4096)],
  ])('that are %s are refused', (_what, token) => expectRefused(token));

  it('that have expired, were revoked or are for another audience are refused', async () => {
    const { access_token: token } = await oauth.tokens(person);
    expect(await oauth.call(token)).toMatchObject({ status: 200 });
    const id = createHash('sha256').update(token).digest('base64url');
    const row = await test.db.oauthState.findFirstOrThrow({ where: { model: 'AccessToken', id } });
    const where = { model_id: { model: 'AccessToken', id } };

    const payload = { ...(row.payload as object), aud: 'https://elsewhere.example/mcp' };
    await test.db.oauthState.update({ where, data: { payload } });
    await expectRefused(token);
    await test.db.oauthState.update({ where, data: { payload: row.payload!, expiresAt: new Date(0) } });
    await expectRefused(token);
    await test.db.oauthState.update({ where, data: { expiresAt: row.expiresAt } });
    expect(await oauth.call(token)).toMatchObject({ status: 200 });

    await oauth.post('/oauth/revoke', { token, client_id: oauth.clientId });
    await expectRefused(token);
  });

  it('hold no longer than their grant, and neither do refresh tokens', async () => {
    const { access_token: token, refresh_token: refresh } = await oauth.tokens(person);
    await test.db.oauthGrant.updateMany({
      where: { clientId: oauth.clientId },
      data: { revokedAt: new Date() },
    });
    await expectRefused(token);
    expect(await oauth.refresh(refresh)).toMatchObject({ status: 400, body: { error: 'invalid_grant' } });
  });

  it('cannot be read from the database', async () => {
    const { access_token: token, refresh_token: refresh } = await oauth.tokens(person);
    const rows = JSON.stringify(await test.db.oauthState.findMany());
    expect(rows).not.toContain(token);
    expect(rows).not.toContain(refresh);
    expect(rows).not.toContain(oauth.verifier);
  });
});

describe('codes and refresh tokens', () => {
  it('a code that comes again takes back what it gave', async () => {
    const code = await oauth.code(person);
    const { body } = await oauth.exchange(code);
    expect(await oauth.call(String(body.access_token))).toMatchObject({ status: 200 });
    expect(await oauth.exchange(code)).toMatchObject({ status: 400, body: { error: 'invalid_grant' } });
    await expectRefused(String(body.access_token));
    expect(await oauth.refresh(String(body.refresh_token))).toMatchObject({ status: 400 });
  });

  it('a refresh token that comes again ends the family', async () => {
    const first = await oauth.tokens(person);
    const second = await oauth.refresh(first.refresh_token);
    expect(second).toMatchObject({ status: 200, body: { refresh_token: expect.any(String) } });
    expect(second.body.refresh_token).not.toBe(first.refresh_token);
    expect(await oauth.refresh(first.refresh_token)).toMatchObject({
      status: 400,
      body: { error: 'invalid_grant' },
    });
    await expectRefused(String(second.body.access_token));
    await expectRefused(first.access_token);
    expect(await oauth.refresh(String(second.body.refresh_token))).toMatchObject({ status: 400 });
    const grants = await test.db.oauthGrant.findMany({ where: { clientId: oauth.clientId } });
    expect(grants).toMatchObject([{ revokedAt: expect.any(Date) }]);
    const where = { clientId: oauth.clientId, tool: 'oauth/token' };
    const event = await eventually(() => test.db.auditEvent.findFirst({ where }));
    expect(event).toMatchObject({ result: 'refused', userId: person.userId });
  });

  it('so does one that comes twice at once', async () => {
    const first = await oauth.tokens(person);
    const answers = await Promise.all([1, 2, 3, 4].map(() => oauth.refresh(first.refresh_token)));
    expect(answers.filter(({ status }) => status === 200).length).toBeLessThanOrEqual(1);
    for (const { body } of answers)
      if (typeof body.access_token === 'string') await expectRefused(body.access_token);
    await expectRefused(first.access_token);
    const where = { clientId: oauth.clientId, tool: 'oauth/token', result: 'refused' };
    await eventually(() => test.db.auditEvent.count({ where }));
  });

  it('a family ends 30 days after the consent, whatever was refreshed', async () => {
    const { refresh_token: refresh } = await oauth.tokens(person);
    const [before] = await refreshRows();
    const { body } = await oauth.refresh(refresh);
    const after = (await refreshRows()).find(({ consumedAt }) => consumedAt === null);
    expect(Math.abs(after!.expiresAt!.getTime() - before!.expiresAt!.getTime())).toBeLessThan(5_000);
    expect(before!.expiresAt!.getTime() - Date.now()).toBeLessThanOrEqual(30 * 86_400_000);
    await test.db.oauthState.updateMany({
      where: { model: 'Grant', id: before!.grantId! },
      data: { expiresAt: new Date() },
    });
    expect(await oauth.refresh(String(body.refresh_token))).toMatchObject({
      body: { error: 'invalid_grant' },
    });
  });

  it('are of no use to another client, or with another verifier or redirect', async () => {
    const { refresh_token: refresh } = await oauth.tokens(person);
    const other = new RawOauth(origin);
    await other.register();
    expect(await other.refresh(refresh)).toMatchObject({ body: { error: 'invalid_grant' } });
    const code = await oauth.code(person);
    expect(await other.exchange(code, { code_verifier: oauth.verifier })).toMatchObject({ status: 400 });
    expect(await oauth.exchange(code, { code_verifier: 'x'.repeat(43) })).toMatchObject({ status: 400 });
    expect(await oauth.exchange(code, { redirect_uri: `${CALLBACK}/2` })).toMatchObject({ status: 400 });
  });

  it('a refresh cannot widen the scope, but narrow it', async () => {
    const tokens = await oauth.tokens(person, { scope: 'vms:read account:read' });
    expect(await oauth.refresh(tokens.refresh_token, { scope: 'vms:read vms:exec' })).toMatchObject({
      status: 400,
      body: { error: 'invalid_scope' },
    });
    expect(await oauth.refresh(tokens.refresh_token, { scope: 'vms:read' })).toMatchObject({
      status: 200,
      body: { scope: 'vms:read' },
    });
  });

  const refreshRows = () =>
    test.db.oauthState.findMany({
      where: { model: 'RefreshToken', payload: { path: ['clientId'], equals: oauth.clientId } },
    });
});

describe('requests for authorization', () => {
  it.each([
    ['no challenge', { code_challenge: undefined, code_challenge_method: undefined }, 'invalid_request'],
    ['a plain challenge', { code_challenge_method: 'plain' }, 'invalid_request'],
    ['a challenge of no method', { code_challenge_method: undefined }, 'invalid_request'],
    ['another audience', { resource: 'https://elsewhere.example/mcp' }, 'invalid_target'],
    ['tokens in the front channel', { response_type: 'token' }, 'unsupported_response_type'],
    ['no dialogue', { prompt: 'none' }, 'login_required'],
  ])('with %s go back refused, saying by whom', async (_what, params, error) => {
    const { url } = await browser().open(oauth.authorizeUrl({ params }));
    const query = url.hash ? new URLSearchParams(url.hash.slice(1)) : url.searchParams;
    expect(url.href).toMatch(CALLBACK);
    expect(Object.fromEntries(query)).toMatchObject({ error, state: 'a-state', iss: origin });
  });

  it.each([
    ['elsewhere', 'https://evil.example/callback'],
    ['to a host that only begins like it', 'http://127.0.0.1.evil.example/callback'],
    ['to another path', 'http://127.0.0.1:9/other'],
    ['with a user in it', 'http://evil@127.0.0.1:9/callback'],
    ['with a line end in it', `${CALLBACK}\r\nlocation: https://evil.example`],
    ['of scripts', 'javascript:alert(1)'],
  ])('that lead %s redirect nowhere', async (_what, uri) => {
    const page = await browser().open(oauth.authorizeUrl({ params: { redirect_uri: uri } }));
    expect(page.status).toBe(400);
    expect(page.url.origin).toBe(origin);
    expect(page.headers.get('content-security-policy')).toContain("default-src 'none'");
    expect(page.text).not.toContain('evil.example');
  });

  it('of a client that nobody knows redirect nowhere', async () => {
    const page = await browser().open(oauth.authorizeUrl({ params: { client_id: 'nobody' } }));
    expect(page).toMatchObject({ status: 400, headers: expect.anything() });
    expect(page.url.origin).toBe(origin);
  });

  it('with NUL in them are refused, as are tokens and clients', async () => {
    for (const name of ['state', 'client_id', 'login_hint', 'redirect_uri'])
      expect((await browser().open(oauth.authorizeUrl({ params: { [name]: 'a\0b' } }))).status).toBe(400);
    expect((await oauth.exchange('a\0b')).status).toBe(400);
    expect((await oauth.refresh('a\0b', { client_id: 'a\0b' })).status).toBe(401);
  });

  it('may lead to the loopback at any port', async () => {
    const uri = 'http://127.0.0.1:65001/callback';
    const url = await browser().allow(oauth.authorizeUrl({ params: { redirect_uri: uri } }), person);
    expect(url.href).toMatch(`${uri}?code=`);
  });
});

describe('registration', () => {
  it.each([
    ['redirects to plain http', { redirect_uris: ['http://evil.example/'] }],
    ['redirects into scripts', { redirect_uris: ['javascript:alert(1)'] }],
    ['redirects to a fragment', { redirect_uris: ['https://app.example/#x'] }],
    ['redirects to anything', { redirect_uris: 'https://app.example' }],
    ['a redirect with a NUL in it', { redirect_uris: ['https://app.example/\0'] }],
    ['a redirect that is half a character', { redirect_uris: ['https://app.example/\ud800'] }],
    ['no redirects', { redirect_uris: [] }],
    [
      'more redirects than any has',
      { redirect_uris: Array.from({ length: 11 }, (_n, i) => `https://app.example/${i}`) },
    ],
    ['a redirect that does not end', { redirect_uris: [`https://app.example/${'x'.repeat(3000)}`] }],
    ['a name that does not end', { client_name: 'x'.repeat(101) }],
    ['a name of hidden characters', { client_name: 'Good\u202Edab' }],
    ['a name of several lines', { client_name: 'Good\r\nSet-Cookie: a=b' }],
    ['a name that is no text', { client_name: { evil: true } }],
  ])('with %s is refused', async (_what, metadata) => {
    const { status, body } = await oauth.register(metadata);
    expect(status).toBe(400);
    expect(body.error).toMatch(/^invalid_(client_metadata|redirect_uri)$/);
  });

  it('makes public clients only, whatever is asked for', async () => {
    const { status, body } = await oauth.register({
      token_endpoint_auth_method: 'client_secret_post',
      grant_types: ['client_credentials', 'authorization_code', 'implicit'],
      response_types: ['token', 'code'],
      scope: 'vms:exec',
      jwks_uri: 'http://127.0.0.1:1/',
      sector_identifier_uri: 'https://127.0.0.1:1/',
      client_secret: 'mine',
    });
    expect(status).toBe(201);
    expect(body).toMatchObject({ token_endpoint_auth_method: 'none', grant_types: ['authorization_code'] });
    for (const name of [
      'client_secret',
      'scope',
      'jwks_uri',
      'sector_identifier_uri',
      'registration_access_token',
    ])
      expect(body).not.toHaveProperty(name);
  });

  it.each([
    ['too large', JSON.stringify({ client_name: 'x'.repeat(60_000) })],
    ['no JSON', '{'],
    ['a list', '[]'],
    ['deeply nested', '['.repeat(20_000) + ']'.repeat(20_000)],
  ])('of a body that is %s is refused', async (_what, body) => {
    const answer = await oauth.send('/oauth/register', body, { 'content-type': 'application/json' });
    expect(answer.status).toBe(400);
  });

  it('is forgotten when nobody lets the client in, and kept when somebody does', async () => {
    const where = { model_id: { model: 'Client', id: oauth.clientId } };
    const before = await test.db.oauthState.findUniqueOrThrow({ where });
    expect(before.expiresAt!.getTime() - Date.now()).toBeLessThanOrEqual(86_400_000);
    await oauth.tokens(person);
    const after = await test.db.oauthState.findUniqueOrThrow({ where });
    expect(after.expiresAt!.getTime() - Date.now()).toBeGreaterThan(30 * 86_400_000);
  });
});
