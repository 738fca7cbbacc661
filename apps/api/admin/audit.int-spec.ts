import { request, type IncomingMessage } from 'node:http';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { setFlagsFromString } from 'node:v8';
import { setTimeout as pause } from 'node:timers/promises';
import { runInNewContext } from 'node:vm';
import { createToken, SCOPES } from '@longhaul/access';
import { newId } from '@longhaul/persistence';
import { makeUser, makeVm } from '../../../test/support/database.js';
import { eventually } from '../../../test/support/eventually.js';
import { testApi } from '../../../test/support/mcp.js';
import { makePerson } from '../../../test/support/oauth.js';
import { RawOauth } from '../../../test/support/oauth-raw.js';
import { makeStaff, rest } from '../../../test/support/rest.js';
import { makeTenant } from '../../../test/support/rest-world.js';

const { test, api } = testApi({ LOG_LEVEL: 'silent' });
let staff: string;

beforeAll(async () => {
  ({ token: staff } = await makeStaff(test));
});

const admin = (query: Record<string, string>, path = '/audit') =>
  rest(api.port, staff, 'GET', `/admin/v1${path}?${new URLSearchParams(query)}`);

describe('the search', () => {
  it('finds by its grant all that an OAuth client did, from the consent to the end of it', async () => {
    const person = await makePerson(test.db);
    const vm = await makeVm(test.db, person);
    const oauth = new RawOauth(`http://127.0.0.1:${api.port}`);
    const { access_token: token } = await oauth.tokens(person, { scope: 'vms:read vms:exec' });
    const grant = await test.db.oauthGrant.findFirstOrThrow({ where: { userId: person.userId } });
    await oauth.call(token, 'list_vms');
    await oauth.call(token, 'start_vm_command', { vm_id: vm.id, command: 'true' });
    await oauth.post('/oauth/revoke', { token, client_id: oauth.clientId });
    const found = await eventually(async () => {
      const { items } = (await admin({ token_id: grant.id })).json as { items: Record<string, string>[] };
      return items.some(({ tool }) => tool === 'oauth/revocation') && items;
    });
    expect(found.map(({ event, tool }) => (event === 'call' ? tool : event)).reverse()).toEqual([
      'oauth/consent',
      'list_vms',
      'job.submitted',
      'start_vm_command',
      'oauth/revocation',
    ]);
    for (const { user_id, client_id } of found.filter(({ event }) => event === 'call'))
      expect({ user_id, client_id }).toEqual({ user_id: person.userId, client_id: oauth.clientId });
    expect((await admin({ token_id: newId() })).json.items).toEqual([]);
  });

  it('finds by every filter, alone and together', async () => {
    const { caller, projectId, vm, job } = await makeTenant(test);
    const mine = {
      userId: caller.userId,
      tokenId: caller.tokenId,
      clientId: `client-${newId()}`,
      projectId,
      vmId: vm.id,
      jobId: job.id,
      tool: `tool_${newId()}`,
      result: 'refused',
      code: `code_${newId()}`,
      ip: '203.0.113.9',
      requestId: newId(),
      traceId: newId(),
    };
    await test.audit.record({
      ...mine,
      event: 'call',
      arguments: { command: 'restart nginx' },
      userAgent: 'curl/8',
    });
    await test.audit.record({
      event: 'call',
      ...mine,
      tool: 'other',
      code: 'other',
      requestId: newId(),
      traceId: newId(),
      clientId: 'other',
    });
    const [from, to] = [-1, 1].map((day) => new Date(Date.now() + day * 86_400_000).toISOString()) as [
      string,
      string,
    ];
    const asked: Record<string, string> = {
      tool: mine.tool,
      code: mine.code,
      request_id: mine.requestId,
      trace_id: mine.traceId,
      client_id: mine.clientId,
    };
    const wide = {
      user_id: mine.userId,
      token_id: mine.tokenId,
      project_id: projectId,
      vm_id: vm.id,
      job_id: job.id,
      result: 'refused',
      ip: mine.ip,
      event: 'call',
      from,
      to,
    };
    for (const [key, value] of Object.entries(asked)) {
      const { json } = await admin({ [key]: value });
      expect([key, json.items.length]).toEqual([key, 1]);
      expect(json.items[0]).toMatchObject({
        tool: mine.tool,
        user_agent: 'curl/8',
        arguments: { command: 'restart nginx' },
      });
    }
    for (const [key, value] of Object.entries(wide))
      expect([key, (await admin({ ...asked, [key]: value })).json.items.length]).toEqual([key, 1]);
    expect((await admin({ ...wide, text: 'NGIN curl' })).json.items).toHaveLength(1);
    expect((await admin({ ...wide, text: 'apache' })).json.items).toEqual([]);
    expect((await admin({ ...asked, vm_id: newId() })).json.items).toEqual([]);
    const bad = { text: 'nginx', from: 'yesterday', after: 'x', user_id: 'me', limit: '201' };
    for (const [key, value] of Object.entries(bad))
      expect((await admin({ [key]: value })).json).toMatchObject({
        status: 400,
        code: 'invalid_arguments',
      });
  });

  it('goes page by page through all of it, each event once', async () => {
    const tool = `paged_${newId()}`;
    await Promise.all(
      Array.from({ length: 25 }, () => test.audit.record({ event: 'call', tool, result: 'ok' })),
    );
    const seen: string[] = [];
    for (let after: string | undefined = ''; after !== undefined;) {
      const { json } = await admin({ tool, limit: '10', ...(after && { after }) });
      seen.push(...json.items.map(({ id }: { id: string }) => id));
      after = json.next;
    }
    expect(new Set(seen).size).toBe(25);
    expect(seen).toHaveLength(25);
  });
});

describe('an export', () => {
  const tool = `big_${newId()}`;
  const COUNT = 40_000;

  beforeAll(async () => {
    await test.db.$executeRaw`
      INSERT INTO audit_events (event, tool, result, arguments)
      SELECT 'call', ${tool}, 'ok', jsonb_build_object('number', number, 'filling', repeat('x', 4000))
      FROM generate_series(1, ${COUNT}::int) AS number`;
  });

  function open(query: Record<string, string>): Promise<IncomingMessage> {
    const path = `/admin/v1/audit/export?${new URLSearchParams(query)}`;
    const headers = { authorization: `Bearer ${staff}` };
    const sent = request({ port: api.port, host: '127.0.0.1', path, headers }).end();
    return once(sent, 'response').then(([response]) => response as IncomingMessage);
  }

  it('of 160 MB goes to a slow reader in little memory, whole', async () => {
    setFlagsFromString('--expose-gc');
    const collect = runInNewContext('gc') as () => void;
    const used = () => {
      collect();
      const { heapUsed, external } = process.memoryUsage();
      return (heapUsed + external) / 2 ** 20;
    };
    const before = used();
    const response = await open({ tool });
    expect(response.headers).toMatchObject({
      'content-type': 'application/x-ndjson',
      'content-disposition': 'attachment; filename="audit.ndjson"',
    });
    // A reader that stops for longer than all of it takes: a server that could run ahead would have.
    let peak = 0;
    for (let looks = 0; looks < 10; looks++) {
      await pause(500);
      peak = Math.max(peak, used());
    }
    const numbers = new Set<number>();
    for await (const line of createInterface({ input: response }))
      numbers.add((JSON.parse(line) as { arguments: { number: number } }).arguments.number);
    expect(numbers.size).toBe(COUNT);
    expect(peak - before).toBeLessThan(48);
  });

  it('that nobody reads any more ends, and makes room for others', async () => {
    const many = await Promise.all(Array.from({ length: 8 }, () => open({ tool })));
    expect(many.map(({ statusCode }) => statusCode)).toEqual(Array(8).fill(200));
    const refused = await admin({ tool }, '/audit/export');
    expect(refused.json).toMatchObject({ status: 429, code: 'rate_limited', details: { retry_after: 5 } });
    expect(refused.headers.get('retry-after')).toBe('5');
    many.forEach((response) => response.destroy());
    await eventually(async () => (await admin({ tool: 'none' }, '/audit/export')).status === 200);
  });

  it('is refused like anything else when it cannot begin', async () => {
    const refused = await admin({ text: 'x y' }, '/audit/export');
    expect(refused.json).toMatchObject({ status: 400, code: 'invalid_arguments' });
    expect((await admin({ format: 'xlsx' }, '/audit/export')).status).toBe(400);
  });

  it('as CSV says the same, and holds no formula', async () => {
    const name = `csv_${newId()}`;
    const nasty = ['=1+1', '+1', '-1', '@SUM(A1)', '\t=1', ' =1', `"x",=1`, 'a\r\n=2', '|calc', 'plain'];
    for (const userAgent of nasty) await test.audit.record({ event: 'call', tool: name, userAgent });
    const { text, headers } = await admin({ tool: name, format: 'csv' }, '/audit/export');
    expect(headers.get('content-type')).toBe('text/csv; charset=utf-8');
    const [head, ...rows] = parseCsv(text);
    expect(rows).toHaveLength(nasty.length);
    const cells = rows.map((row) => row[head!.indexOf('user_agent')]!);
    expect(cells.filter((cell) => /^\s*[=+\-@|]/.test(cell))).toEqual([]);
    expect(cells.map((cell) => cell.replace(/^'/, ''))).toEqual(nasty.reverse());
    expect(rows.every((row) => row.length === head!.length)).toBe(true);
  });
});

describe('the own history', () => {
  it('shows what was done in the own name, and nothing of others', async () => {
    const { token, caller, projectId, memberId, vm, job } = await makeTenant(test);
    const about = { projectId, vmId: vm.id, jobId: job.id };
    await test.audit.record({
      event: 'call',
      userId: caller.userId,
      tool: 'mine',
      traceId: newId(),
      ...about,
    });
    await test.audit.record({ event: 'call', userId: memberId, tool: 'theirs', ...about });
    const own = await rest(api.port, token, 'GET', '/account/v1/audit');
    expect(own.json.items).toMatchObject([{ tool: 'mine', vm_id: vm.id }]);
    expect(Object.keys(own.json.items[0])).not.toEqual(expect.arrayContaining(['customer']));
    expect(own.json.items[0]).not.toHaveProperty('trace_id');
    const again = await rest(api.port, token, 'GET', `/account/v1/audit?vm_id=${vm.id}&tool=theirs`);
    expect(again.json.items).toEqual([]);
    expect((await rest(api.port, token, 'GET', `/account/v1/audit?user_id=${memberId}`)).status).toBe(400);
  });

  it('is closed to a token that is for some projects only', async () => {
    const { caller } = await makeUser(test.db);
    const { token } = await createToken(test.db, caller.userId, SCOPES, { projectIds: caller.projectIds });
    expect((await rest(api.port, token, 'GET', '/account/v1/audit')).json).toMatchObject({
      code: 'forbidden_scope',
    });
  });
});

/** As RFC 4180 has it. */
function parseCsv(text: string): string[][] {
  const rows: string[][] = [[]];
  for (const [, quoted, end] of text.matchAll(/((?:"(?:[^"]|"")*")|[^,\r\n]*)(,|\r\n)/g)) {
    rows.at(-1)!.push(quoted!.replace(/^"(.*)"$/s, '$1').replaceAll('""', '"'));
    if (end !== ',') rows.push([]);
  }
  return rows.slice(0, -1);
}
