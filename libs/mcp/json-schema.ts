import type { Tool as ListedTool } from '@modelcontextprotocol/server';
import { z } from 'zod';

type InputSchema = ListedTool['inputSchema'];

/** JSON Schema of a tool's arguments. Throws at load for what clients of the big models reject: references, unions at the top, open objects. */
export function inputSchema(tool: string, schema: z.ZodObject): InputSchema {
  const json = toJson(schema) as InputSchema & Record<string, unknown>;
  const text = JSON.stringify(json);
  if (json.type !== 'object' || json.additionalProperties !== false || text.includes('"$ref"')) {
    throw new Error(`The input of ${tool} must be one flat z.strictObject.`);
  }
  return json;
}

/** JSON Schema of a tool's answer. It stays open, so that a field added later does not break clients that keep schemas. */
export function outputSchema(schema: z.ZodObject): NonNullable<ListedTool['outputSchema']> {
  return toJson(schema) as NonNullable<ListedTool['outputSchema']>;
}

function toJson(schema: z.ZodObject): object {
  const json = z.toJSONSchema(schema, { io: 'input', reused: 'inline' });
  delete json.$schema;
  // zod bounds every integer by what a double can hold exactly; saying so would only cost tokens.
  const dropped = (bound: unknown) => Math.abs(Number(bound)) === Number.MAX_SAFE_INTEGER;
  // Keys of JSON objects are strings anyway; some clients reject the keyword.
  const text = JSON.stringify(json, (key, value: unknown) =>
    key === 'propertyNames' || dropped(value) ? undefined : value,
  );
  return JSON.parse(text) as object;
}
