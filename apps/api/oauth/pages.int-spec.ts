import { testDatabase, type TestDatabase } from '../../../test/support/database.js';
import { startTestApi } from '../../../test/support/mcp.js';
import { Browser, makePerson, type Page } from '../../../test/support/oauth.js';
import { RawOauth } from '../../../test/support/oauth-raw.js';
import type { ApiServer } from '../server.js';

let test: TestDatabase;
let api: ApiServer;
let origin: string;
let person: Awaited<ReturnType<typeof makePerson>>;
let oauth: RawOauth;
let browser: Browser;

beforeAll(async () => {
  test = await testDatabase();
});
afterAll(() => test.drop());
beforeEach(async () => {
  await test.db.rateLimit.deleteMany();
  api = await startTestApi(test.url);
  origin = `http://127.0.0.1:${api.port}`;
  person = await makePerson(test.db);
  oauth = new RawOauth(origin);
  browser = new Browser([origin]);
  await oauth.register({ client_name: '<b>Bold</b> "& co' });
});
afterEach(() => api.close());

const logIn = (page: Page, email = person.email, password = person.password) =>
  browser.submit(page, (fields) => {
    fields.set('email', email);
    fields.set('password', password);
  });

it('ask in plain HTML that no script, frame or cache has a part in', async () => {
  const login = await browser.open(oauth.authorizeUrl());
  const consent = await logIn(login);
  for (const { headers, text } of [login, consent]) {
    const policy = headers.get('content-security-policy');
    expect(policy).toMatch(
      /^default-src 'none'; style-src 'sha256-[^']+'; form-action 'self' http:\/\/127\.0\.0\.1:9;/,
    );
    expect(policy).toMatch(/frame-ancestors 'none'; base-uri 'none'$/);
    expect(headers.get('x-frame-options')).toBe('DENY');
    expect(headers.get('cache-control')).toBe('no-store');
    expect(text).not.toMatch(/<script|<b>|https?:\/\/(?!127)/);
    expect(text).toContain('&lt;b&gt;Bold&lt;/b&gt; &quot;&amp; co');
    // Every field that a person sees has a label.
    for (const [, id] of text.matchAll(/<input\s+id="(\w+)"/g)) expect(text).toContain(`<label for="${id}">`);
  }
});

it('say who asks for what, where', async () => {
  const { text } = await logIn(await browser.open(oauth.authorizeUrl({ scope: 'vms:read vms:exec' })));
  expect(text).toContain(`You are logged in as ${person.email}`);
  expect(text).toContain('a program on this computer (127.0.0.1:9)');
  expect(text).toContain('registered itself');
  expect(text).toContain('Run any command on your virtual machines, as root');
  expect(text).toContain(`project-${person.userId}`);
  expect(text).not.toContain('vms:power');
});

it('set cookies that scripts and other sites have no use of', async () => {
  const response = await fetch(oauth.authorizeUrl(), { redirect: 'manual' });
  const cookies = response.headers.getSetCookie();
  expect(cookies.length).toBeGreaterThan(0);
  for (const cookie of cookies) expect(cookie.toLowerCase()).toMatch(/httponly/);
  for (const cookie of cookies) expect(cookie.toLowerCase()).toMatch(/samesite=lax/);
  await response.text();
});

it('ask a browser that is known for no password, but for consent every time', async () => {
  await browser.allow(oauth.authorizeUrl(), person);
  const page = await browser.open(oauth.authorizeUrl());
  expect(page.text).not.toContain('name="password"');
  expect(page.text).toContain('name="decision" value="allow"');
});

it('ask whoever is suspended meanwhile to log in, and do not let them', async () => {
  await browser.allow(oauth.authorizeUrl(), person);
  await test.db.user.update({ where: { id: person.userId }, data: { standing: 'suspended' } });
  const page = await browser.open(oauth.authorizeUrl());
  expect(page.text).toContain('name="password"');
  expect((await logIn(page)).status).toBe(401);
});

it.each([
  ['a wrong password', undefined, 'wrong'],
  ['nobody’s address', 'nobody@example.test', undefined],
  ['what is no address', '\r\nx: y', undefined],
  ['half of an address', 'a\0b', undefined],
  ['a pattern of addresses', '%', undefined],
  ['a password that does not end', undefined, 'x'.repeat(10_000)],
])('do not let in %s, nor say which is wrong', async (_what, email, password) => {
  const page = await logIn(await browser.open(oauth.authorizeUrl()), email, password);
  expect(page.status).toBe(401);
  expect(page.text).toContain('<p role="alert">The e-mail address or the password is wrong.</p>');
});

it('stop whoever tries many passwords, the right one too', async () => {
  let page = await browser.open(oauth.authorizeUrl());
  for (let tried = 0; tried < 10; tried++) page = await logIn(page, person.email, `wrong ${tried}`);
  page = await logIn(page);
  expect(page.status).toBe(429);
  expect(Number(page.headers.get('retry-after'))).toBeGreaterThan(60);
  // Neither cookies nor the case of letters make it another attempt.
  browser = new Browser([origin]);
  const again = await logIn(await browser.open(oauth.authorizeUrl()), person.email.toUpperCase());
  expect(again.status).toBe(429);
});

it('count the passwords that are tried on all replicas together', async () => {
  const replica = await startTestApi(test.url);
  try {
    const places = [origin, `http://127.0.0.1:${replica.port}`];
    let page: Page | undefined;
    for (const place of places) {
      const there = new RawOauth(place);
      await there.register();
      browser = new Browser([place]);
      page = await browser.open(there.authorizeUrl());
      for (let tried = 0; tried < 5; tried++) page = await logIn(page, person.email, `wrong ${tried}`);
      expect(page.status).toBe(401);
    }
    expect(await logIn(page!, person.email, 'one more')).toMatchObject({ status: 429 });
    const kept = JSON.stringify(await test.db.rateLimit.findMany({ select: { key: true } }));
    expect(kept).toContain('oauth login');
    expect(kept).not.toContain(person.email);
  } finally {
    await replica.close();
  }
});

it('let another person of the same browser take over', async () => {
  const other = await makePerson(test.db);
  const consent = await logIn(await browser.open(oauth.authorizeUrl()));
  const page = await browser.submit(consent, (fields) => fields.set('decision', 'switch'));
  expect(page.text).toContain('name="password"');
  const { text } = await logIn(page, other.email, other.password);
  expect(text).toContain(`You are logged in as ${other.email}`);
  expect(text).not.toContain(person.email);
});

it('leave an audit of who logged in, or tried, and of what was allowed', async () => {
  const page = await logIn(await browser.open(oauth.authorizeUrl()), person.email, 'wrong');
  const consent = await logIn(page);
  await browser.submit(consent, (fields) => fields.set('decision', 'allow'));
  const events = await test.db.auditEvent.findMany({
    where: { clientId: oauth.clientId },
    orderBy: { id: 'asc' },
  });
  expect(events).toMatchObject([
    {
      tool: 'oauth/login',
      result: 'refused',
      code: 'unauthenticated',
      userId: null,
      arguments: { email: person.email },
    },
    { tool: 'oauth/login', result: 'ok', userId: person.userId, ip: '127.0.0.1' },
    {
      tool: 'oauth/consent',
      result: 'ok',
      userId: person.userId,
      arguments: { scopes: ['vms:read', 'account:read'] },
    },
  ]);
  expect(JSON.stringify(events.map((event) => event.arguments))).not.toContain('wrong');
});

it('take no form that they have not shown to this browser', async () => {
  const page = await browser.open(oauth.authorizeUrl());
  const stranger = new Browser([origin]);
  const fields = (page: Page) =>
    new URLSearchParams({ mark: /name="mark" value="([^"]+)"/.exec(page.text)![1]! });
  expect((await stranger.open(new URL(`${page.url.pathname}/login`, origin), fields(page))).status).toBe(400);
  const other = await stranger.open(oauth.authorizeUrl());
  expect((await browser.open(new URL(`${page.url.pathname}/login`, origin), fields(other))).status).toBe(403);
  const crossSite = await fetch(new URL(`${page.url.pathname}/login`, origin), {
    method: 'POST',
    headers: { origin: 'https://evil.example' },
    body: fields(page),
  });
  expect(crossSite.status).toBe(403);
  expect((await browser.open(new URL('/oauth/interaction/unknown', origin))).status).toBe(400);
});

it('refuse forms and requests that do not end', async () => {
  const page = await browser.open(oauth.authorizeUrl());
  const large = new URLSearchParams({ mark: 'x'.repeat(100_000) });
  expect((await browser.open(new URL(`${page.url.pathname}/login`, origin), large)).status).toBe(413);
  for (const path of ['/oauth/token', '/oauth/revoke', '/oauth/introspect'])
    expect((await oauth.post(path, { token: 'x'.repeat(100_000) })).status).toBe(400);
});

it('come after registrations, which are bounded, and can be forbidden', async () => {
  await api.close();
  await test.db.rateLimit.deleteMany();
  api = await startTestApi(test.url, { OAUTH_REGISTRATIONS: 2, PORT: api.port });
  expect([(await oauth.register()).status, (await oauth.register()).status]).toEqual([201, 201]);
  const third = await oauth.register();
  expect(third.status).toBe(429);
  expect(Number(third.headers.get('retry-after'))).toBeGreaterThan(60);
  await api.close();
  api = await startTestApi(test.url, { OAUTH_REGISTRATIONS: 0, PORT: api.port });
  const metadata = await (await fetch(`${origin}/.well-known/oauth-authorization-server`)).json();
  expect(metadata).not.toHaveProperty('registration_endpoint');
  expect((await oauth.register()).status).toBe(404);
});

it('work under the address that clients know, with cookies for https', async () => {
  await api.close();
  api = await startTestApi(test.url, { PUBLIC_URL: 'https://longhaul.example' });
  const metadata = await fetch(`http://127.0.0.1:${api.port}/.well-known/oauth-authorization-server`);
  expect(await metadata.json()).toMatchObject({
    issuer: 'https://longhaul.example',
    token_endpoint: 'https://longhaul.example/oauth/token',
  });
  const url = oauth.authorizeUrl({ params: { resource: 'https://longhaul.example/mcp' } });
  url.port = String(api.port);
  const response = await fetch(url, { redirect: 'manual', headers: { origin: 'https://longhaul.example' } });
  expect(response.status).toBe(303);
  for (const cookie of response.headers.getSetCookie()) expect(cookie.toLowerCase()).toMatch(/; secure/);
});
