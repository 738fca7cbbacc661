import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Tool } from '@longhaul/mcp';
import { countTokens } from 'gpt-tokenizer/encoding/o200k_base';
import { catalog, toolsets } from './catalog.js';

const here = import.meta.dirname;
const files = readdirSync(here, { recursive: true, encoding: 'utf8' }).filter((file) =>
  file.endsWith('.tool.ts'),
);

it('holds every tool, each once, in a file and folder of its name', async () => {
  const names = catalog.map(({ name }) => name);
  expect(new Set(names).size).toBe(names.length);
  const expected = catalog.map(({ name, toolset }) => join(toolset, `${name.replaceAll('_', '-')}.tool.ts`));
  expect(files.sort()).toEqual(expected.sort());
  for (const file of files) {
    const exported = Object.values(
      (await import(`./${file.replace(/\.ts$/, '.js')}`)) as Record<string, Tool>,
    );
    expect(exported).toHaveLength(1);
    expect(catalog).toContain(exported[0]);
  }
});

it('knows every toolset, and shows few tools to those who name none', () => {
  expect(Object.keys(toolsets).sort()).toEqual([...new Set(catalog.map(({ toolset }) => toolset))].sort());
  expect(toolsets).not.toHaveProperty('all');
  const shown = catalog.filter(({ toolset }) => toolsets[toolset as keyof typeof toolsets].default);
  expect(shown.length).toBeLessThanOrEqual(25);
  expect(countTokens(JSON.stringify({ tools: shown.map(({ listed }) => listed) }))).toBeLessThan(10_000);
});

describe.each(catalog.map((tool) => [tool.name, tool] as const))('%s', (_name, tool) => {
  const { listed } = tool;

  it('stays as it is: a change shows here, in review', () => {
    expect({ scope: tool.scope, vm: tool.vm, ...listed }).toMatchSnapshot();
  });

  it('describes itself shortly', () => {
    expect(listed.name).toMatch(/^[a-z]+(_[a-z]+)*$/);
    expect(listed.title).toBeTruthy();
    expect(listed.description!.length).toBeLessThan(400);
  });

  it('says truly whether it changes anything', () => {
    const { readOnlyHint, destructiveHint } = listed.annotations!;
    expect(readOnlyHint && destructiveHint).toBe(false);
    if (tool.vm?.exec) expect(readOnlyHint).toBe(false);
  });

  it('takes nothing that clients of the big models reject', () => {
    const { inputSchema } = listed;
    expect(inputSchema).toMatchObject({ type: 'object', additionalProperties: false });
    for (const union of ['anyOf', 'oneOf', 'allOf']) expect(inputSchema).not.toHaveProperty(union);
    expect(JSON.stringify(inputSchema)).not.toContain('$ref');
    for (const schema of objectsIn(inputSchema)) {
      if (schema.type === 'array') expect(schema).toHaveProperty('items');
    }
  });

  it('makes jobs that a retry cannot make twice', () => {
    if (tool.vm?.exec) expect(listed.inputSchema.properties).toHaveProperty('idempotency_key');
  });
});

/** The value itself and every object in it, at any depth. */
function objectsIn(value: unknown): Record<string, unknown>[] {
  if (typeof value !== 'object' || value === null) return [];
  return [value as Record<string, unknown>, ...Object.values(value).flatMap(objectsIn)];
}
