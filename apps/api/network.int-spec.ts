import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { newId } from '@longhaul/persistence';
import { makeUser, testDatabase, type TestDatabase } from '../../test/support/database.js';
import { mcpUrl, startTestApi } from '../../test/support/mcp.js';
import { modernRequest } from '../../test/support/tasks.js';
import { apiConfig } from './config.js';

let test: TestDatabase;
let token: string;
const directory = mkdtempSync(join(tmpdir(), 'longhaul-tls-'));

beforeAll(async () => {
  test = await testDatabase();
  ({ token } = await makeUser(test.db));
});
afterAll(async () => {
  await test.drop();
  rmSync(directory, { recursive: true });
});

/** The address that the audit has of a call which came with this header. */
async function audited(env: object, forwarded: string): Promise<string | null> {
  const api = await startTestApi(test.url, { ...env });
  const requestId = newId();
  const { headers, ...rest } = modernRequest(token, 'tools/call', { name: 'whoami', arguments: {} });
  const sent = { ...headers, 'x-request-id': requestId, 'x-forwarded-for': forwarded };
  await (await fetch(mcpUrl(api.port), { ...rest, headers: sent })).text();
  await api.close();
  return (await test.db.auditEvent.findFirstOrThrow({ where: { requestId } })).ip;
}

describe('X-Forwarded-For', () => {
  it('is believed of nobody who was not named', async () => {
    expect(await audited({}, '203.0.113.9')).toBe('127.0.0.1');
    expect(await audited({ TRUSTED_PROXIES: '10.0.0.0/8,192.168.1.1' }, '203.0.113.9')).toBe('127.0.0.1');
  });

  it('names the last one that no trusted proxy is', async () => {
    const TRUSTED_PROXIES = '127.0.0.0/8,10.0.0.0/8';
    expect(await audited({ TRUSTED_PROXIES }, '203.0.113.9')).toBe('203.0.113.9');
    expect(await audited({ TRUSTED_PROXIES }, '198.51.100.1, 203.0.113.9, 10.1.2.3')).toBe('203.0.113.9');
  });

  it.each(['all', '10.0.0.0/33', '10.0.0', '::1/129', '10.0.0.0/8/8', '0.0.0.0/-1'])(
    'takes no proxies %s',
    (list) => {
      const { error } = apiConfig.safeParse({ DATABASE_URL: test.url, TRUSTED_PROXIES: list });
      expect(error?.issues.map(({ path }) => path[0])).toEqual(['TRUSTED_PROXIES']);
    },
  );
});

describe('TLS', () => {
  const [cert, key] = ['cert.pem', 'key.pem'].map((name) => join(directory, name)) as [string, string];

  beforeAll(() => {
    const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'];
    const made = [
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:prime256v1',
      '-nodes',
      '-days',
      '1',
    ];
    execFileSync('openssl', ['req', ...made, ...subject, '-keyout', key, '-out', cert], { stdio: 'ignore' });
  });

  const get = (send: typeof httpsRequest, options: object) =>
    new Promise<{ status?: number; body: string }>((resolve, reject) => {
      const request = send({ host: '127.0.0.1', agent: false, ...options }, (response) => {
        text(response).then((body) => resolve({ status: response.statusCode, body }), reject);
      });
      request.on('error', reject);
      request.end((options as { body?: string }).body);
    });

  it('is served with the certificate of the operator, and nothing else is', async () => {
    const api = await startTestApi(test.url, { TLS_CERT_FILE: cert, TLS_KEY_FILE: key });
    const { method, headers, body } = modernRequest(token, 'tools/call', { name: 'whoami', arguments: {} });
    const call = { port: api.port, path: '/mcp', method, headers, body };
    expect(await get(httpsRequest, { ...call, ca: readFileSync(cert) })).toMatchObject({
      status: 200,
      body: expect.stringContaining('token_id'),
    });
    await expect(get(httpsRequest, call)).rejects.toThrow(/self-signed|self signed/);
    await expect(get(httpRequest as typeof httpsRequest, call)).rejects.toThrow();
    const path = '/.well-known/oauth-protected-resource';
    const metadata = await get(httpsRequest, { port: api.port, path, ca: readFileSync(cert) });
    expect(JSON.parse(metadata.body)).toMatchObject({ resource: `https://127.0.0.1:${api.port}/mcp` });
    await api.close();
  });

  it('needs both files, and says which one it cannot read', async () => {
    await expect(startTestApi(test.url, { TLS_CERT_FILE: cert })).rejects.toThrow('go together');
    const missing = join(directory, 'none');
    await expect(startTestApi(test.url, { TLS_CERT_FILE: cert, TLS_KEY_FILE: missing })).rejects.toThrow(
      'TLS_KEY_FILE cannot be read',
    );
  });
});
