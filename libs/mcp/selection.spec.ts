import { z } from 'zod';
import { parseSelection, type Narrowing } from './selection.js';
import { defineTool } from './tool.js';

const define = (name: string, toolset: string, readOnlyHint: boolean) =>
  defineTool({
    name,
    title: name,
    description: name,
    toolset,
    scope: 'any',
    annotations: { readOnlyHint, destructiveHint: false, idempotentHint: true, openWorldHint: false },
    input: z.strictObject({}),
    output: z.object({}),
    handle: async () => ({}),
  });
const catalog = {
  tools: [
    define('list', 'vms', true),
    define('start', 'vms', false),
    define('read', 'logs', true),
    define('pay', 'billing', false),
  ],
  toolsets: { vms: { default: true }, logs: { default: true }, billing: { default: false } },
};

type Parts = Partial<Narrowing>;
const parse = (parts: Parts) => parseSelection({ path: {}, query: {}, headers: {}, ...parts }, catalog);
const shown = (parts: Parts) => catalog.tools.filter(parse(parts)).map(({ name }) => name);

it.each<[string, Parts, string[]]>([
  ['nothing: the default set', {}, ['list', 'start', 'read']],
  ['a list in the query', { query: { toolsets: 'vms' } }, ['list', 'start']],
  ['a list in the path', { path: { toolsets: 'logs,billing' } }, ['read', 'pay']],
  [
    'a list in a header, with spaces',
    { headers: { 'x-mcp-toolsets': 'logs, vms' } },
    ['list', 'start', 'read'],
  ],
  ['all', { query: { toolsets: 'all' } }, ['list', 'start', 'read', 'pay']],
  ['all among names', { query: { toolsets: 'vms,all' } }, ['list', 'start', 'read', 'pay']],
  ['two lists', { query: { toolsets: 'vms,logs' }, headers: { 'x-mcp-toolsets': 'logs,billing' } }, ['read']],
  ['lists that share nothing', { path: { toolsets: 'vms' }, query: { toolsets: 'logs' } }, []],
  ['read-only in the query', { query: { read_only: 'true' } }, ['list', 'read']],
  ['read-only in a header', { headers: { 'x-mcp-readonly': 'true' } }, ['list', 'read']],
  ['read-only in the path', { path: { readOnly: true, toolsets: 'vms' } }, ['list']],
  ['read-only that is off', { query: { read_only: 'false' } }, ['list', 'start', 'read']],
  [
    'read-only that one switches off',
    { query: { read_only: 'false' }, headers: { 'x-mcp-readonly': 'true' } },
    ['list', 'read'],
  ],
  ['other headers', { headers: { 'x-mcp-toolset': 'none of ours' } }, ['list', 'start', 'read']],
])('%s', (_what, parts, names) => {
  expect(shown(parts)).toEqual(names);
});

it.each<[string, Parts, RegExp]>([
  [
    'an unknown name',
    { query: { toolsets: 'vms,vm' } },
    /Unknown toolset "vm"; known are vms, logs, billing/,
  ],
  ['a name of every object', { path: { toolsets: '__proto__,toString' } }, /"__proto__", "toString"/],
  ['a name in another case', { headers: { 'x-mcp-toolsets': 'VMS' } }, /Unknown toolset "VMS"/],
  ['an empty list', { headers: { 'x-mcp-toolsets': '' } }, /Unknown toolset ""/],
  ['a list given twice', { query: { toolsets: ['vms', 'logs'] } }, /toolsets once/],
  ['a long list', { query: { toolsets: 'x'.repeat(1_025) } }, /1024 characters/],
  ['a list of many', { query: { toolsets: 'vms,'.repeat(32) } }, /32 names/],
  ['another word for yes', { query: { read_only: '1' } }, /true or false/],
  ['a flag given twice', { headers: { 'x-mcp-readonly': 'false, true' } }, /true or false/],
  ['a misspelt parameter', { query: { readonly: 'true' } }, /"readonly"; known are toolsets, read_only/],
])('refuses %s', (_what, parts, message) => {
  expect(() => parse(parts)).toThrow(
    expect.objectContaining({ code: 'invalid_arguments', message: expect.stringMatching(message) }),
  );
});

it('repeats little of what it was sent, and names what it knows', () => {
  const query = { toolsets: Array.from({ length: 32 }, (_, n) => `${n}`.padStart(31, 'x')).join(',') };
  expect(() => parse({ query })).toThrow(
    expect.objectContaining({ details: { toolsets: ['vms', 'logs', 'billing'] } }),
  );
  const many = Object.fromEntries(Array.from({ length: 1_000 }, (_, n) => [`${n}${'x'.repeat(10_000)}`, '']));
  const length = (parts: Parts) => {
    try {
      parse(parts);
      return Infinity;
    } catch (error) {
      return (error as Error).message.length;
    }
  };
  expect(length({ query })).toBeLessThan(500);
  expect(length({ query: many })).toBeLessThan(1_000);
});
