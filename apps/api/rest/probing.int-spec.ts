import { eventually } from '../../../test/support/eventually.js';
import { forkApi } from '../../../test/support/api-process.js';
import { newId } from '@longhaul/persistence';
import { z } from 'zod';
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
import type { Route } from './route.js';

const { test, api } = testApi({ RATE_CALLS: 0, LOG_LEVEL: 'silent' });
let mine: Tenant;
let theirs: Tenant;
let staff: string;

beforeAll(async () => {
  ({ token: staff } = await makeStaff(test));
  mine = await makeTenant(test);
  theirs = await makeTenant(test);
});

const table = routes.map((route) => [nameOf(route), route] as const);
const ofUsers = table.filter(([, { needs }]) => needs !== 'staff');

const send = (route: Route, sample: Sample, token: string): Promise<RestAnswer> =>
  rest(api.port, token, route.method, addressOf(route, sample), sample.body);

const told = ({ status, json }: RestAnswer) => ({ status, ...json, request_id: undefined });

/** Whatever would show that something of the other tenant got out. */
const traces = ({ projectId, vm, job, memberId, memberEmail, caller, ...tenant }: Tenant) => [
  ...[projectId, vm.id, vm.hostname, job.id, memberId, memberEmail],
  ...[tenant.tokenId, tenant.grantId, tenant.machineId],
  ...[caller.userId, caller.email, caller.tokenId],
];

async function stateOf({ projectId, caller }: Tenant): Promise<string> {
  const { db } = test;
  const rows = await Promise.all([
    db.project.findMany({ where: { id: projectId }, include: { members: true, vms: true } }),
    db.token.findMany({ where: { userId: caller.userId }, omit: { hash: true, lastUsedAt: true } }),
    db.oauthGrant.findMany({ where: { userId: caller.userId } }),
    db.job.findMany({ where: { projectId } }),
  ]);
  return JSON.stringify(rows);
}

/** The request with each single string of it in turn, and with all path parameters at once, as the other tenant's has it. */
function crossed(own: Sample, other: Sample): [sample: Sample, absent: Sample][] {
  const variants: [Sample, Sample][] = [];
  for (const part of ['params', 'query', 'body'] as const) {
    const keys = Object.keys(own[part] ?? {}).filter(
      (key) => JSON.stringify(own[part]![key]) !== JSON.stringify(other[part]?.[key]),
    );
    const swap = (names: string[], value: (key: string) => unknown) =>
      ({
        ...own,
        [part]: { ...own[part], ...Object.fromEntries(names.map((key) => [key, value(key)])) },
      }) as Sample;
    const gone = (key: string) => {
      const value: unknown = other[part]![key];
      if (Array.isArray(value)) return [newId()];
      return String(value).includes('@') ? `${newId()}@example.test` : newId();
    };
    for (const names of [...keys.map((key) => [key]), ...(keys.length > 1 ? [keys] : [])])
      variants.push([swap(names, (key) => other[part]![key]), swap(names, gone)]);
  }
  return variants;
}

describe.each(ofUsers)('%s', (name, route) => {
  it('shows and does nothing of another tenant, and does not tell that it exists', async () => {
    const before = await stateOf(theirs);
    // The address of somebody who is in no project is how a member is added: knowing it is all it takes.
    const sampleFor = (tenant: Tenant) =>
      SAMPLES[name]!({ ...tenant, strangerEmail: mine.strangerEmail, strangerId: mine.strangerId });
    for (const [sample, absent] of crossed(sampleFor(mine), sampleFor(theirs))) {
      const answer = await send(route, sample, mine.token);
      expect(answer.status === 404 || answer.json.items?.length === 0).toBe(true);
      expect(told(answer)).toEqual(told(await send(route, absent, mine.token)));
    }
    expect(await stateOf(theirs)).toBe(before);
  });

  it('answers with nothing of another tenant', async () => {
    const { text } = await send(route, SAMPLES[name]!(await makeTenant(test)), mine.token);
    const own = await send(route, SAMPLES[name]!(mine), mine.token);
    for (const trace of traces(theirs)) {
      expect(text).not.toContain(trace);
      expect(own.text).not.toContain(trace);
    }
  });
});

const STRINGS = [
  `'; DROP TABLE users; --`,
  `" OR ""="`,
  `x' UNION SELECT hash::text FROM tokens --`,
  `$\{jndi:ldap://x}`,
  `a\r\nx-injected: 1`,
  `a\n{"level":50,"msg":"forged"}`,
  `\u001b[31m`,
  `a\0b`,
  `\ud800`,
  `../../../etc/passwd`,
  `%00%0d%0a`,
  `=cmd|' /C calc'!A0`,
  'x'.repeat(7_000),
  'ü'.repeat(600),
  '',
  ' ',
];

/** Names of the parts of an input, and whether a part is a list. */
function keysOf(schema: Route['query']): [name: string, isList: boolean][] {
  if (!schema) return [];
  const { properties = {} } = z.toJSONSchema(schema, { io: 'input' }) as {
    properties?: Record<string, { type?: string }>;
  };
  return Object.entries(properties).map(([name, { type }]) => [name, type === 'array']);
}

it.each(table)('%s takes no harm from any string in any place', async (name, route) => {
  const token = route.needs === 'staff' ? staff : mine.token;
  const tenant = await makeTenant(test);
  const sample = SAMPLES[name]!(route.needs === 'staff' ? tenant : mine);
  const users = await test.db.user.count();
  for (const text of STRINGS) {
    for (const part of ['params', 'query', 'body'] as const) {
      for (const [key, isList] of keysOf(route[part])) {
        const value = isList && part === 'body' ? [text] : text;
        const answer = await send(
          route,
          { ...sample, [part]: { ...sample[part], [key]: value } } as Sample,
          token,
        );
        expect([key, text, answer.status < 500]).toEqual([key, text, true]);
        expect(answer.headers.get('x-injected')).toBeNull();
        for (const secret of [staff, mine.token]) expect(answer.text).not.toContain(secret);
      }
    }
  }
  expect(await test.db.user.count()).toBeGreaterThanOrEqual(users);
});

it('what is logged of hostile requests stays one line each, without what is secret', async () => {
  const loud = forkApi(test.url, { LOG_LEVEL: 'trace' });
  const port = await loud.ready();
  try {
    await test.db.$executeRaw`ALTER TABLE audit_events ADD CONSTRAINT closed CHECK (false) NOT VALID`;
    const body = { email: 'someone@example.test', password: 'correct horse battery' };
    // On a machine that is busy the transaction may not even begin in time, which is a 503 as well.
    await eventually(async () => {
      const answer = await rest(port, staff, 'POST', `/admin/v1/users`, body, {
        'user-agent': 'x {"level":50}',
      });
      expect(answer.status).toBe(503);
      return loud.output().includes('could not be audited');
    });
  } finally {
    loud.child.kill();
    await loud.exit;
    await test.db.$executeRaw`ALTER TABLE audit_events DROP CONSTRAINT closed`;
  }
  const lines = loud.output().trim().split('\n');
  for (const line of lines) expect(() => JSON.parse(line)).not.toThrow();
  expect(loud.output()).not.toContain('correct horse');
  expect(loud.output()).not.toContain(staff);
});
