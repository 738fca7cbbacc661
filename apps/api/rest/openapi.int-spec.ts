import { Validator } from '@seriousme/openapi-schema-validator';
import { readFile } from 'node:fs/promises';
import { testApi } from '../../../test/support/mcp.js';
import { makeStaff, rest } from '../../../test/support/rest.js';
import { routes } from './index.js';

const { test, api } = testApi();
let document: { paths: Record<string, Record<string, Operation>> };

interface Operation {
  operationId: string;
  summary: string;
  parameters: { name: string; in: string; required: boolean }[];
  requestBody?: { content: Record<string, { schema: { additionalProperties?: boolean } }> };
  responses: Record<string, { content?: Record<string, unknown> }>;
}

beforeAll(async () => {
  const { token } = await makeStaff(test);
  document = (await rest(api.port, token, 'GET', '/admin/openapi.json')).json as typeof document;
});

it('is valid OpenAPI 3.1', async () => {
  const validator = new Validator();
  expect(await validator.validate(document)).toEqual({ valid: true });
  expect(validator.version).toBe('3.1');
});

it('lists every route, its parameters and its answer', () => {
  const listed = Object.entries(document.paths).flatMap(([path, operations]) =>
    Object.keys(operations).map((method) => `${method.toUpperCase()} ${path}`),
  );
  expect(listed.sort()).toEqual(routes.map(({ method, path }) => `${method} ${path}`).sort());
  const ids = Object.values(document.paths).flatMap((operations) =>
    Object.values(operations).map(({ operationId }) => operationId),
  );
  expect(new Set(ids).size).toBe(ids.length);
  for (const route of routes) {
    const operation = document.paths[route.path]![route.method.toLowerCase()]!;
    const inPath = [...route.path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
    expect(operation.parameters.filter((each) => each.in === 'path').map(({ name }) => name)).toEqual(inPath);
    expect(operation.parameters.filter((each) => each.in === 'path').every(({ required }) => required)).toBe(
      true,
    );
    const body = operation.requestBody?.content['application/json']?.schema;
    expect(body?.additionalProperties).toBe(route.body ? false : undefined);
    expect(operation.responses[route.status ?? 200]!.content).toBeDefined();
  }
});

it('every route is in the handbook', async () => {
  const handbook = await readFile(new URL('../../../docs/admin-api.md', import.meta.url), 'utf8');
  const rows = [...handbook.matchAll(/^\| `(\w+) (\/[^`]*)`/gm)].map(
    ([, method, path]) => `${method} ${path}`,
  );
  expect(rows.sort()).toEqual(routes.map(({ method, path }) => `${method} ${path}`).sort());
});
