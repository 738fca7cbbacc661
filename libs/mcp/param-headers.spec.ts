import { z } from 'zod';
import { ParamHeaders } from './param-headers.js';
import { defineTool } from './tool.js';

const tool = defineTool({
  name: 'deploy',
  title: 'Deploy',
  description: 'Deploys',
  toolset: 'test',
  scope: 'any',
  annotations: { readOnlyHint: true, destructiveHint: false, idempotentHint: true, openWorldHint: false },
  input: z.strictObject({
    region: z.string().optional().meta({ 'x-mcp-header': 'Region' }),
    size: z.int().optional().meta({ 'x-mcp-header': 'Size' }),
    note: z.string().optional(),
  }),
  output: z.object({}),
  handle: async () => ({}),
});

const headers = new ParamHeaders([tool]);
const modern = { 'io.modelcontextprotocol/protocolVersion': '2026-07-28' };
const call = (args: object, _meta: object | undefined = modern) => ({
  jsonrpc: '2.0',
  id: 7,
  method: 'tools/call',
  params: { name: 'deploy', arguments: args, _meta },
});

it.each([
  ['the value itself', { region: 'Hello' }, 'Hello'],
  ['its Base64', { region: 'Hällo' }, '=?base64?SMOkbGxv?='],
  ['what only looks like Base64', { region: 'SGVsbG8=' }, 'SGVsbG8='],
  ['half of the marks of Base64', { region: '=?base64?SGVsbG8=' }, '=?base64?SGVsbG8='],
  ['anything without the argument', {}, 'Hello'],
])('takes %s', (_name, args, header) => {
  expect(headers.check(call(args), { 'mcp-param-region': header })).toBeUndefined();
});

it.each([
  ['another value', 'Goodbye'],
  ['nothing', undefined],
  ['Base64 without padding', '=?base64?SGVsbG8?='],
  ['characters that Base64 has not', '=?base64?SGVs!!!bG8=?='],
  ['bytes that are not UTF-8', '=?base64?/w==?='],
])('refuses %s', (_name, header) => {
  const refusal = headers.check(call({ region: 'Hello' }), { 'mcp-param-region': header });
  expect(refusal).toMatchObject({
    id: 7,
    error: { code: -32020, data: { mismatch: { header: 'Mcp-Param-Region' } } },
  });
});

it('compares numbers as numbers', () => {
  expect(headers.check(call({ size: 42 }), { 'mcp-param-size': '42.0' })).toBeUndefined();
  expect(headers.check(call({ size: 42 }), { 'mcp-param-size': '43' })).toBeDefined();
});

it('asks nothing of other messages, of other arguments and of the older revision', () => {
  expect(headers.check(call({ note: 'x' }), {})).toBeUndefined();
  expect(headers.check(call({ region: 'x' }, {}), {})).toBeUndefined();
  expect(headers.check({ ...call({ region: 'x' }), method: 'tools/list' }, {})).toBeUndefined();
  expect(headers.check(undefined, {})).toBeUndefined();
  expect(headers.check([call({ region: 'x' })], {})).toBeUndefined();
});
