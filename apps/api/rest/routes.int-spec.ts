import { newId } from '@longhaul/persistence';
import { createToken, SCOPES } from '@longhaul/access';
import { testApi } from '../../../test/support/mcp.js';
import { makeStaff, rest, type RestAnswer } from '../../../test/support/rest.js';
import {
  SAMPLES,
  addressOf,
  makeTenant,
  nameOf,
  type Sample,
  type Tenant,
} from '../../../test/support/rest-world.js';
import { routes } from './index.js';
import { isChange, type Route } from './route.js';

const { test, api } = testApi({ RATE_CALLS: 0, LOG_LEVEL: 'silent' });
let staff: string;
let tenant: Tenant;

beforeAll(async () => {
  ({ token: staff } = await makeStaff(test));
});
beforeEach(async () => {
  tenant = await makeTenant(test);
});

const table = routes.map((route) => [nameOf(route), route] as const);
const changes = table.filter(([, route]) => isChange(route));
const sampleOf = (route: Route) => SAMPLES[nameOf(route)]!(tenant);
const whoMay = ({ needs }: Route) => (needs === 'staff' ? staff : tenant.token);

function send(route: Route, sample: Sample, token: string | undefined = whoMay(route)): Promise<RestAnswer> {
  return rest(api.port, token, route.method, addressOf(route, sample), sample.body);
}

/** The same for all requests but its id. */
const problemOf = ({ status, json }: RestAnswer) => ({ status, ...json, request_id: undefined });

const lastCall = () =>
  test.db.auditEvent.findFirstOrThrow({ where: { event: 'call' }, orderBy: { id: 'desc' } });

/** Everything that a request could have changed. */
async function state(): Promise<string> {
  const tables = [
    'users',
    'projects',
    'project_members',
    'tokens',
    'oauth_grants',
    'oauth_state',
    'vms',
    'jobs',
    'kill_switches',
  ];
  const rows = await Promise.all(
    tables.map((name) =>
      test.db.$queryRawUnsafe(
        `SELECT (to_jsonb(t) - 'last_used_at')::text AS row FROM ${name} AS t ORDER BY 1`,
      ),
    ),
  );
  return JSON.stringify(rows);
}

it('every route has a sample, and no other', () => {
  expect(Object.keys(SAMPLES).sort()).toEqual(table.map(([name]) => name).sort());
});

describe.each(table)('%s', (name, route) => {
  const withBody = route.method !== 'GET';

  it('answers, and is audited', async () => {
    const sample = sampleOf(route);
    const answer = await send(route, sample);
    expect([name, answer.status, answer.json?.detail]).toEqual([name, route.status ?? 200, undefined]);
    expect(answer.headers.get('cache-control')).toBe('no-store');
    expect(await lastCall()).toMatchObject({
      tool: `${route.path.split('/')[1]} ${name}`,
      result: 'ok',
      code: null,
      requestId: answer.headers.get('x-request-id'),
      ip: '127.0.0.1',
      arguments: expect.objectContaining(sample.params ?? {}),
    });
  });

  it('takes nobody without credentials that hold', async () => {
    const before = await state();
    for (const token of ['', undefined, 'lh_x', `lh_${'x'.repeat(49)}`, 'eyJhbGciOiJub25lIn0.e30.']) {
      const answer = await rest(
        api.port,
        token,
        route.method,
        addressOf(route, sampleOf(route)),
        sampleOf(route).body,
      );
      expect(answer.json).toMatchObject({ status: 401, code: 'unauthenticated', title: 'Unauthorized' });
      expect(answer.headers.get('content-type')).toMatch(/^application\/problem\+json/);
      expect(answer.headers.get('www-authenticate')).toMatch(/^Bearer/);
    }
    expect(await state()).toBe(before);
  });

  it('takes nobody who may not, whatever they ask for', async () => {
    const narrow = await createToken(test.db, tenant.caller.userId, []);
    const before = await state();
    const refused = route.needs === 'staff' ? 'forbidden_staff' : 'forbidden_scope';
    const token = route.needs === 'staff' ? tenant.token : narrow.token;
    const sample = sampleOf(route);
    const asked: Sample[] = [sample, absent(sample), { ...sample, query: { nothing: '1' } }];
    const answers = await Promise.all(asked.map((each) => send(route, each, token)));
    expect(answers[0]!.json).toMatchObject({ status: 403, code: refused });
    if (route.needs !== 'staff')
      expect(answers[0]!.headers.get('www-authenticate')).toBe(
        `Bearer error="insufficient_scope", scope="${route.needs}"`,
      );
    for (const answer of answers) expect(problemOf(answer)).toEqual(problemOf(answers[0]!));
    expect(await lastCall()).toMatchObject({ result: 'refused', code: refused });
    expect(await state()).toBe(before);
  });

  it('refuses keys that it does not know', async () => {
    const before = await state();
    const sample = sampleOf(route);
    const wrong: Sample[] = [
      { ...sample, query: { ...sample.query, nothing: '1' } },
      { ...sample, query: { ...sample.query, __proto__x: '1', constructor: 'x' } },
      ...(withBody ? [{ ...sample, body: { ...sample.body, nothing: 1 } }] : []),
    ];
    for (const each of wrong)
      expect((await send(route, each)).json).toMatchObject({ status: 400, code: 'invalid_arguments' });
    expect(await state()).toBe(before);
  });

  it('refuses bodies that are none', async () => {
    if (!withBody) return;
    const address = addressOf(route, sampleOf(route));
    const post = (body: string, type = 'application/json') =>
      rest(api.port, whoMay(route), route.method, address, body, { 'content-type': type });
    for (const body of [
      '{',
      '[]',
      'null',
      '"x"',
      '[{}]',
      `${'['.repeat(100)}${']'.repeat(100)}`,
      '{"__proto__":{}}',
    ])
      expect((await post(body)).json).toMatchObject({ status: 400, code: 'invalid_arguments' });
    expect((await post('{}', 'text/plain')).json).toMatchObject({
      status: 415,
      code: 'unsupported_media_type',
    });
    expect((await post(' '.repeat(65_537))).json).toMatchObject({ status: 413, code: 'body_too_large' });
  });

  it('does not tell what is absent from what cannot be', async () => {
    const sample = sampleOf(route);
    if (!sample.params) return;
    const before = await state();
    const gone = await send(route, absent(sample));
    expect(gone.json).toMatchObject({ status: 404, code: 'not_found' });
    for (const id of ['x', '0', "' OR 1=1 --", '\0', '../../tokens', 'a'.repeat(2000), `${newId()}\n`]) {
      const params = Object.fromEntries(Object.keys(sample.params).map((key) => [key, id]));
      expect(problemOf(await send(route, { ...sample, params }))).toEqual(problemOf(gone));
    }
    expect(await state()).toBe(before);
  });
});

describe.each(changes)('%s', (_name, route) => {
  it('does nothing that cannot be audited', async () => {
    const sample = sampleOf(route);
    await test.db.$executeRaw`ALTER TABLE audit_events ADD CONSTRAINT closed CHECK (false) NOT VALID`;
    try {
      const before = await state();
      expect((await send(route, sample)).json).toMatchObject({
        status: 503,
        code: 'unavailable',
        retryable: true,
      });
      expect(await state()).toBe(before);
    } finally {
      await test.db.$executeRaw`ALTER TABLE audit_events DROP CONSTRAINT closed`;
    }
  });

  it('is closed to a flagged account unless it takes back, and everything to a suspended one', async () => {
    const { token, caller } = route.needs === 'staff' ? await makeStaff(test) : tenant;
    const stand = (standing: 'flagged' | 'suspended') =>
      test.db.user.update({ where: { id: caller.userId }, data: { standing } });
    const sample = sampleOf(route);
    for (const standing of ['flagged', 'suspended'] as const) {
      await stand(standing);
      if (standing === 'flagged' && route.takesBack) {
        expect((await send(route, sample, token)).status).toBe(200);
        continue;
      }
      const before = await state();
      expect((await send(route, sample, token)).json).toMatchObject({
        status: 403,
        code: 'vm_state_blocked',
        details: { standing },
      });
      expect(await state()).toBe(before);
    }
  });
});

it('staff needs a token that nothing was taken from', async () => {
  const { caller, token } = await makeStaff(test);
  const narrowed = [
    { scopes: SCOPES.slice(1) },
    { projectIds: [tenant.projectId] },
    { vmIds: [tenant.vm.id] },
  ];
  const look = () => rest(api.port, token, 'GET', '/admin/v1/users');
  expect((await look()).status).toBe(200);
  for (const data of narrowed) {
    const reset = { scopes: [...SCOPES], projectIds: [], vmIds: [] };
    await test.db.token.update({ where: { id: caller.tokenId }, data: { ...reset, ...data } });
    expect((await look()).json).toMatchObject({ status: 403, code: 'forbidden_scope' });
  }
});

it('takes e-mail address and token as HTTP Basic, and no other method or address', async () => {
  const basic = `Basic ${Buffer.from(`${tenant.caller.email}:${tenant.token}`).toString('base64')}`;
  const me = await rest(api.port, undefined, 'GET', '/account/v1/me', undefined, { authorization: basic });
  expect(me.json).toMatchObject({ user_id: tenant.caller.userId, credential: { kind: 'basic' } });
  for (const [method, path] of [
    ['GET', '/admin/v1/nothing'],
    ['PUT', '/admin/v1/users'],
    ['DELETE', `/admin/v1/users/${tenant.caller.userId}`],
    ['GET', '/admin/v1/users/'],
    ['GET', '/account/v1/me/x'],
  ]) {
    expect((await rest(api.port, staff, method!, path!)).json).toMatchObject({
      status: 404,
      code: 'not_found',
    });
    expect((await rest(api.port, undefined, method!, path!)).json).toMatchObject({ status: 401 });
  }
});

/** The same request about what there never was. */
function absent(sample: Sample): Sample {
  if (!sample.params) return sample;
  return { ...sample, params: Object.fromEntries(Object.keys(sample.params).map((key) => [key, newId()])) };
}
