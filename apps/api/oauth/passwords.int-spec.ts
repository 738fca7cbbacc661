import { createMachineClient } from '@longhaul/oauth';
import { testApi } from '../../../test/support/mcp.js';
import { Browser, makePerson, type Page } from '../../../test/support/oauth.js';
import { RawOauth } from '../../../test/support/oauth-raw.js';
import { makeStaff, rest } from '../../../test/support/rest.js';

const NEW_PASSWORD = 'another horse battery';

const { test, api } = testApi();
let origin: string;
let oauth: RawOauth;
let person: Awaited<ReturnType<typeof makePerson>>;
let staff: string;

beforeAll(async () => {
  origin = `http://127.0.0.1:${api.port}`;
  ({ token: staff } = await makeStaff(test));
});
beforeEach(async () => {
  person = await makePerson(test.db);
  oauth = new RawOauth(origin);
  await oauth.register();
});

const setPassword = () =>
  rest(api.port, staff, 'PATCH', `/admin/v1/users/${person.userId}`, { password: NEW_PASSWORD });

const logIn = (browser: Browser, page: Page, password = person.password) =>
  browser.submit(page, (fields) => {
    fields.set('email', person.email);
    fields.set('password', password);
  });

it('a new password ends what the one before has let in, and tells how much', async () => {
  const { access_token: token, refresh_token: refresh } = await oauth.tokens(person);
  const code = await oauth.code(person);
  const other = await oauth.tokens(await makePerson(test.db));
  expect((await setPassword()).json).toMatchObject({ id: person.userId, grants_ended: 2 });
  expect(await oauth.call(token)).toMatchObject({ status: 401 });
  expect(await oauth.refresh(refresh)).toMatchObject({ status: 400, body: { error: 'invalid_grant' } });
  expect(await oauth.exchange(code)).toMatchObject({ status: 400, body: { error: 'invalid_grant' } });
  expect(await oauth.call(other.access_token)).toMatchObject({ status: 200 });
  expect((await setPassword()).json).toMatchObject({ grants_ended: 0 });
  const unchanged = await rest(api.port, staff, 'PATCH', `/admin/v1/users/${person.userId}`, {
    staff: false,
  });
  expect(unchanged.json).not.toHaveProperty('grants_ended');
});

it('a new password logs out browsers, also one that was just asked for consent', async () => {
  const [asked, known] = [new Browser([origin]), new Browser([origin])];
  const consent = await logIn(asked, await asked.open(oauth.authorizeUrl()));
  expect(consent.text).toContain(`You are logged in as ${person.email}`);
  await known.allow(oauth.authorizeUrl(), person);
  await setPassword();
  const late = await asked.submit(consent, (fields) => fields.set('decision', 'allow'));
  expect(late.status).toBe(400);
  for (const browser of [asked, known]) {
    const page = await browser.open(oauth.authorizeUrl());
    expect(page.text).toContain('name="password"');
    expect((await logIn(browser, page)).status).toBe(401);
    const again = await logIn(browser, await browser.open(oauth.authorizeUrl()), NEW_PASSWORD);
    expect(again.text).toContain(`You are logged in as ${person.email}`);
  }
});

it('machines and developer tokens do not live on a password', async () => {
  const machine = await createMachineClient(test.db, 'nightly', {
    userId: person.userId,
    scopes: ['account:read'],
  });
  const { body } = await oauth.post('/oauth/token', {
    grant_type: 'client_credentials',
    client_id: machine.clientId,
    client_secret: machine.clientSecret,
  });
  await setPassword();
  expect(await oauth.call(String(body.access_token))).toMatchObject({ status: 200 });
  const { revokedAt } = await test.db.token.findUniqueOrThrow({ where: { id: person.tokenId } });
  expect(revokedAt).toBeNull();
});
