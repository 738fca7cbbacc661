import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import Provider from 'oidc-provider';
import { testDatabase, type TestDatabase } from '../../../test/support/database.js';
import { mcpUrl, startTestApi } from '../../../test/support/mcp.js';
import { Browser, MemoryProvider, connectByOauth, makePerson } from '../../../test/support/oauth.js';
import { CALLBACK, RawOauth } from '../../../test/support/oauth-raw.js';
import type { ApiServer } from '../server.js';

const SECRET = 'a secret that both know, and nobody else';

let test: TestDatabase;
let api: ApiServer;
let origin: string;
let upstream: Server;
let issuer: string;

/** Another oidc-provider, which logs everybody in as who they say they are: `account` is a JSON of their claims. */
async function startUpstream(redirectUri: () => string) {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: 'longhaul',
        client_secret: SECRET,
        redirect_uris: [redirectUri()],
        token_endpoint_auth_method: 'client_secret_basic',
      },
    ],
    claims: { openid: ['sub'], email: ['email', 'email_verified'] },
    pkce: { required: () => true },
    features: { devInteractions: { enabled: true } },
    findAccount: (_ctx, sub) => ({
      accountId: sub,
      claims: async () => ({
        sub,
        email: `${sub}@example.test`,
        email_verified: !sub.startsWith('unverified'),
      }),
    }),
  });
  server.on('request', provider.callback());
  return server;
}

beforeAll(async () => {
  test = await testDatabase();
  // The port of the API must be known before the provider that it asks.
  const probe = await startTestApi(test.url);
  origin = `http://127.0.0.1:${probe.port}`;
  await probe.close();
  upstream = await startUpstream(() => `${origin}/oauth/callback`);
  api = await start();
});
afterAll(async () => {
  await api.close();
  upstream.close();
  upstream.closeAllConnections();
  await test.drop();
});

const start = (env = {}) =>
  startTestApi(test.url, {
    PORT: Number(new URL(origin).port),
    OIDC_ISSUER: issuer,
    OIDC_CLIENT_SECRET: SECRET,
    ...env,
  });

/** Goes through the other provider's own pages, and back here. */
async function logInAs(browser: Browser, asked: URL, login: string) {
  let page = await browser.open(asked);
  expect(page.url.origin).toBe(issuer);
  page = await browser.submit(page, (fields) => {
    fields.set('login', login);
    fields.set('password', 'any');
  });
  return page.url.origin === issuer ? browser.submit(page, () => undefined) : page;
}

async function allowAs(asked: URL, login: string): Promise<URL> {
  const browser = new Browser([origin, issuer]);
  const consent = await logInAs(browser, asked, login);
  return (await browser.submit(consent, (fields) => fields.set('decision', 'allow'))).url;
}

it('stands in for passwords; whoever is new gets a user and a project', async () => {
  const connectAs = async (login: string) => {
    const provider = new MemoryProvider(CALLBACK);
    const client = await connectByOauth(mcpUrl(api.port), provider, (asked) => allowAs(asked, login));
    const { structuredContent } = await client.callTool({ name: 'whoami', arguments: {} });
    await client.close();
    return structuredContent as { email: string };
  };
  expect(await connectAs('newcomer')).toMatchObject({ email: 'newcomer@example.test' });
  expect(await connectAs('newcomer')).toMatchObject({ email: 'newcomer@example.test' });
  const users = await test.db.user.findMany({
    where: { email: 'newcomer@example.test' },
    include: { identities: true, projects: true },
  });
  expect(users).toMatchObject([
    { passwordHash: null, identities: [{ issuer }], projects: [{ role: 'owner' }] },
  ]);
});

it('leads to the user of a verified address, and of no other', async () => {
  const person = await makePerson(test.db);
  await test.db.user.update({ where: { id: person.userId }, data: { email: 'known@example.test' } });
  await test.db.user.create({ data: { id: crypto.randomUUID(), email: 'unverified@example.test' } });
  const oauth = new RawOauth(origin);
  await oauth.register();
  await allowAs(oauth.authorizeUrl(), 'known');
  expect(await test.db.identity.findMany({ where: { userId: person.userId } })).toHaveLength(1);
  const page = await logInAs(new Browser([origin, issuer]), oauth.authorizeUrl(), 'unverified');
  expect(page.status).toBe(403);
  expect(page.text).toContain('has not verified it');
  // An address that looks like a pattern is that of no other.
  await allowAs(oauth.authorizeUrl(), 'kno_n');
  expect(await test.db.identity.findMany({ where: { userId: person.userId } })).toHaveLength(1);
});

it('makes nobody a user where that is forbidden', async () => {
  await api.close();
  api = await start({ OIDC_CREATE_USERS: 'false' });
  const oauth = new RawOauth(origin);
  await oauth.register();
  const browser = new Browser([origin, issuer]);
  const page = await logInAs(browser, oauth.authorizeUrl(), 'stranger');
  expect(page).toMatchObject({ status: 403 });
  expect(page.text).toContain('You have no account here');
  expect(await test.db.user.count({ where: { email: 'stranger@example.test' } })).toBe(0);
});

it('is believed only by the browser that was sent there, once, with its own state', async () => {
  const oauth = new RawOauth(origin);
  await oauth.register();
  const victim = new Browser([origin]);
  const sent = await victim.open(oauth.authorizeUrl());
  const state = sent.url.searchParams.get('state')!;
  expect(sent.url.searchParams.get('code_challenge_method')).toBe('S256');
  expect(sent.url.searchParams.get('nonce')).toBeTruthy();
  const back = (query: Record<string, string>) =>
    new URL(`/oauth/callback?${new URLSearchParams(query)}`, origin);
  const answers: Record<string, string>[] = [
    { state, code: 'forged', iss: issuer },
    { state: `${state.split('.')[0]}.${'x'.repeat(43)}`, code: 'forged', iss: issuer },
    { state, error: 'access_denied', iss: issuer },
  ];
  for (const query of answers) {
    const page = await victim.open(back(query));
    expect(page).toMatchObject({ status: 403 });
    expect(page.text).toContain('did not log you in');
  }
  for (const state of ['', 'https://evil.example', '//evil.example/x', '../../x.y'])
    expect((await victim.open(back({ state, code: 'x' }))).status).toBe(400);
  expect((await new Browser([origin]).open(back({ state, code: 'x' }))).status).toBe(400);
});

it('is said to be away when it does not answer', async () => {
  await api.close();
  api = await start({ OIDC_ISSUER: 'http://127.0.0.1:1' });
  const oauth = new RawOauth(origin);
  await oauth.register();
  const page = await new Browser([origin]).open(oauth.authorizeUrl());
  expect(page.status).toBe(503);
  expect(page.text).toContain('does not answer');
});
