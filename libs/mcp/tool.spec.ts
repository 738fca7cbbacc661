import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { INSTRUCTIONS, SERVER_INFO } from './identity.js';
import { defineTool } from './tool.js';

const define = (input: z.ZodObject) =>
  defineTool({
    name: 'look',
    title: 'Look',
    description: 'Looks.',
    toolset: 'test',
    scope: 'any',
    annotations: { readOnlyHint: true, destructiveHint: false, idempotentHint: true, openWorldHint: false },
    input,
    output: z.object({ seen: z.int(), where: z.string().optional() }),
    handle: async () => ({ seen: 1 }),
  });

it('computes schemas when it is loaded: closed for arguments, open for answers', () => {
  const { listed } = define(z.strictObject({ far: z.int().min(1).default(2).describe('In metres') }));
  expect(listed.inputSchema).toEqual({
    type: 'object',
    properties: { far: { type: 'integer', minimum: 1, default: 2, description: 'In metres' } },
    additionalProperties: false,
  });
  expect(listed.outputSchema).toEqual({
    type: 'object',
    properties: { seen: { type: 'integer' }, where: { type: 'string' } },
    required: ['seen'],
  });
});

it.each([
  ['open objects', z.object({})],
  ['references', z.strictObject({ tree: recursive() })],
])('refuses %s at load', (_what, input) => {
  expect(() => define(input)).toThrow('look must be one flat z.strictObject');
});

function recursive() {
  const node: z.ZodType = z.lazy(() => z.strictObject({ child: node.optional() }));
  return node;
}

it('introduces itself in few words, with the version of the package', () => {
  expect(INSTRUCTIONS.split(/\s+/).length).toBeLessThan(200);
  const text = readFileSync(join(import.meta.dirname, '../../package.json'), 'utf8');
  expect(SERVER_INFO.version).toBe((JSON.parse(text) as { version: string }).version);
});
