import { z } from 'zod';
import { problemSchema } from './problem.js';
import type { Route } from './route.js';

type Json = Record<string, unknown>;

/** The OpenAPI 3.1 document of the routes, which is made of nothing but their declarations. */
export function openApiOf(routes: readonly Route[]): Json {
  const paths: Record<string, Json> = {};
  for (const route of routes) (paths[route.path] ??= {})[route.method.toLowerCase()] = operationOf(route);
  return {
    openapi: '3.1.0',
    info: {
      title: 'Longhaul: administration and accounts',
      version: '1',
      description:
        'Below /admin/v1 for staff, by a token of all scopes that is not restricted; below /account/v1 for every user. ' +
        'Times are ISO 8601 in UTC. Keys that a route does not know are refused.',
      license: { name: 'MIT', identifier: 'MIT' },
    },
    servers: [{ url: '/' }],
    security: [{ token: [] }, { basic: [] }],
    paths,
    components: {
      securitySchemes: {
        token: { type: 'http', scheme: 'bearer', description: 'A developer token' },
        basic: { type: 'http', scheme: 'basic', description: 'E-mail address and developer token' },
      },
      schemas: { Problem: toJson(problemSchema, 'output') },
      responses: {
        Problem: {
          description: 'Refused or failed; `code` says why',
          content: { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } },
        },
      },
    },
  };
}

function operationOf(route: Route): Json {
  const {
    method,
    path,
    summary,
    description,
    needs,
    params,
    query,
    body,
    answer,
    downloads = [],
    status = 200,
  } = route;
  const [, area, , subject = 'document'] = path.split('/');
  const content = answer
    ? { 'application/json': { schema: toJson(answer, 'output') } }
    : Object.fromEntries(downloads.map((type) => [type, { schema: { type: 'string' } }]));
  return {
    operationId: `${method.toLowerCase()}${path.replaceAll(/[^a-z0-9]+/g, '_')}`.replace(/_$/, ''),
    tags: [`${area} ${subject}`],
    summary,
    description: [description, needs === 'staff' ? 'For staff.' : `Scope: ${needs}.`]
      .filter(Boolean)
      .join('\n\n'),
    parameters: [...parametersOf('path', params), ...parametersOf('query', query)],
    ...(body && {
      requestBody: { required: true, content: { 'application/json': { schema: toJson(body, 'input') } } },
    }),
    responses: {
      [status]: { description: 'Done', content },
      default: { $ref: '#/components/responses/Problem' },
    },
  };
}

function parametersOf(place: 'path' | 'query', input: z.ZodType | undefined): Json[] {
  if (!input) return [];
  const { properties = {}, required = [] } = toJson(input, 'input') as {
    properties?: Record<string, Json>;
    required?: string[];
  };
  return Object.entries(properties).map(([name, { description, ...schema }]) => ({
    name,
    in: place,
    required: required.includes(name),
    ...(description !== undefined && { description }),
    schema,
  }));
}

function toJson(schema: z.ZodType, io: 'input' | 'output'): Json {
  const json = z.toJSONSchema(schema, { io, reused: 'inline' });
  delete json.$schema;
  // zod bounds every integer by what a double can hold exactly, which says nothing.
  const says = (value: unknown) => Math.abs(Number(value)) !== Number.MAX_SAFE_INTEGER;
  return JSON.parse(
    JSON.stringify(json, (_key, value: unknown) => (says(value) ? value : undefined)),
  ) as Json;
}
