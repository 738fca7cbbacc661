import { execFileSync, fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:https';
import type { RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TEST_SECRETS_KEYS, testDatabase, type TestDatabase } from '../../../test/support/database.js';
import { mcpUrl } from '../../../test/support/mcp.js';
import { Browser, MemoryProvider, connectByOauth, makePerson } from '../../../test/support/oauth.js';
import { CALLBACK, RawOauth } from '../../../test/support/oauth-raw.js';

const directory = mkdtempSync(join(tmpdir(), 'longhaul-documents-'));
const file = (name: string) => join(directory, name);

let test: TestDatabase;
let site: Server;
/** What the site of a client answers at each path. */
const pages = new Map<string, RequestListener>();
const apis: ChildProcess[] = [];
let visits = 0;
/** Of all APIs. */
let output = '';

beforeAll(async () => {
  test = await testDatabase();
  const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost'];
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', file('key.pem')];
  execFileSync('openssl', ['req', '-x509', '-days', '2', ...key, ...subject, '-out', file('cert.pem')], {
    stdio: 'ignore',
  });
  site = createServer({ key: readFileSync(file('key.pem')), cert: readFileSync(file('cert.pem')) });
  site.on('request', (request, response) => {
    visits++;
    const page = pages.get(request.url!);
    if (page) page(request, response);
    else response.writeHead(404).end();
  });
  site.listen(0, 'localhost');
  await once(site, 'listening');
});
afterAll(async () => {
  await Promise.all(apis.map((api) => (api.kill(), once(api, 'exit'))));
  site.close();
  site.closeAllConnections();
  await test.drop();
  rmSync(directory, { recursive: true });
});

/** A process of its own, as only at its start Node reads which authorities are to be trusted. */
async function startApi(env: NodeJS.ProcessEnv): Promise<string> {
  const api = fork(join(import.meta.dirname, '../main.ts'), {
    execArgv: ['--import', join(import.meta.dirname, '../../../test/support/register-typescript.mjs')],
    env: {
      PATH: process.env.PATH,
      DATABASE_URL: test.url,
      SECRETS_KEYS: TEST_SECRETS_KEYS,
      PORT: '0',
      LOG_LEVEL: 'trace',
      NODE_EXTRA_CA_CERTS: file('cert.pem'),
      ...env,
    },
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  });
  for (const stream of [api.stdout!, api.stderr!]) stream.on('data', (chunk) => (output += chunk));
  apis.push(api);
  const [{ port }] = (await once(api, 'message')) as [{ port: number }];
  return `http://127.0.0.1:${port}`;
}

const address = (path: string) => `https://localhost:${(site.address() as AddressInfo).port}${path}`;

/** Serves a document at `path`; answers its URL, which is the id of the client. */
function document(path: string, more: object = {}): string {
  const id = address(path);
  const metadata = { client_id: id, client_name: 'Documented', redirect_uris: [CALLBACK], ...more };
  pages.set(path, (_request, response) => {
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(metadata));
  });
  return id;
}

it('make a client known without registration, and whose it is', async () => {
  const origin = await startApi({ OAUTH_PRIVATE_CLIENTS: 'true' });
  const person = await makePerson(test.db);
  const id = document('/client.json', { grant_types: ['authorization_code', 'refresh_token'] });
  const provider = new MemoryProvider(CALLBACK, {}, id);
  const client = await connectByOauth(mcpUrl(Number(new URL(origin).port)), provider, async (asked) => {
    expect(asked.searchParams.get('client_id')).toBe(id);
    const browser = new Browser([origin]);
    const url = await browser.allow(asked, person);
    const { text } = await browser.open(asked);
    expect(text).toContain('Documented');
    expect(text).toContain(id);
    expect(text).not.toContain('registered itself');
    return url;
  });
  expect((await client.callTool({ name: 'whoami', arguments: {} })).structuredContent).toMatchObject({
    email: person.email,
  });
  await client.close();
  expect(output).toContain('listening');
  const { access_token: token, refresh_token: refresh } = provider.saved!;
  for (const secret of [token, refresh!, provider.verifier, person.password])
    expect(output).not.toContain(secret);
  expect(await test.db.oauthState.count({ where: { model: 'Client' } })).toBe(0);
  await refuseAll(origin);
});

async function refuseAll(origin: string) {
  document('/other.json', { client_id: address('/client.json') });
  document('/secret.json', { client_secret: 'x' });
  document('/large.json', { padding: 'x'.repeat(10_000) });
  document('/redirects.json', { redirect_uris: ['http://evil.example/'] });
  document('/name.json', { client_name: 'Good\u202Edab' });
  pages.set('/moved.json', (_request, response) =>
    response.writeHead(302, { location: address('/client.json') }).end(),
  );
  pages.set('/text.json', (_request, response) => response.end('no JSON'));
  pages.set('/slow.json', () => undefined);
  const paths = ['other', 'secret', 'large', 'redirects', 'name', 'moved', 'text', 'slow', 'absent'];
  const ids = [
    ...paths.map((path) => address(`/${path}.json`)),
    'http://localhost:1/client.json',
    'https://localhost:1/client.json',
    'https://user:secret@localhost/client.json',
  ];
  for (const id of ids) {
    const oauth = new RawOauth(origin);
    oauth.clientId = id;
    const started = Date.now();
    const page = await new Browser([origin]).open(oauth.authorizeUrl());
    expect({ id, status: page.status }).toEqual({ id, status: 400 });
    expect(page.url.origin).toBe(origin);
    expect(Date.now() - started).toBeLessThan(10_000);
  }
}

it('are not fetched from private addresses, unless that is allowed', async () => {
  const origin = await startApi({});
  const oauth = new RawOauth(origin);
  oauth.clientId = document('/private.json');
  visits = 0;
  const page = await new Browser([origin]).open(oauth.authorizeUrl());
  expect(page.status).toBe(400);
  expect(visits).toBe(0);
});
