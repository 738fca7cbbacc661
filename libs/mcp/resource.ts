import type { ErrorBody } from '@longhaul/errors';
import {
  ResourceNotFoundError,
  type CallToolResult,
  type ReadResourceResult,
  type Resource as ListedResource,
  type ResourceTemplateType,
} from '@modelcontextprotocol/server';
import { isNotOfTheCaller, protocolErrorOf } from './answer.js';
import type { Tool } from './tool.js';

type Output = Record<string, unknown>;

/** Something to read at a URI. It is read by a tool, so that its gates, its bounds and its audit are those of the tool. */
export interface ResourceDefinition {
  name: string;
  title: string;
  description: string;
  mimeType: string;
  /** `{job_id}` stands for one segment and becomes the tool's argument of that name. */
  uriTemplate: string;
  tool: Tool;
  /** Arguments beside those of the URI. */
  args?: Record<string, unknown>;
  /** What of the tool's answer is the content; text, or base64 as `blob`. By default all of it as JSON. */
  contents?(output: Output, variables: Record<string, string>): { text: string } | { blob: string };
  /** Whether resources/list shows those there are: the values of its one variable. */
  enumerated?: true;
  /** Values that an argument of the URI may be completed to, by a tool that lists them. */
  complete?: Record<string, Completion>;
}

export type Completion =
  string[] | { tool: Tool; args: Record<string, unknown>; values(output: Output): string[] };

export interface Resource {
  listed: ResourceTemplateType;
  definition: ResourceDefinition;
  /** The variables of a URI of this template, or undefined for any other URI. */
  match(uri: string): Record<string, string> | undefined;
}

/** Runs a tool in the name of a request, through every gate. */
export type RunTool = (tool: Tool, args: Record<string, unknown>) => Promise<CallToolResult>;

/** Longest URI that is looked at. */
const URI_MAX = 512;
/** Values of one completion, as the protocol bounds them. */
const COMPLETIONS_MAX = 100;

export function defineResource(definition: ResourceDefinition): Resource {
  const { name, title, description, mimeType, uriTemplate } = definition;
  const names = [...uriTemplate.matchAll(/\{(\w+)\}/g)].map(([, variable]) => variable!);
  const pattern = new RegExp(`^${uriTemplate.replace(/\{\w+\}/g, '([^/?#]+)')}$`);
  return {
    definition,
    listed: { name, title, description, mimeType, uriTemplate },
    match(uri) {
      const values = uri.length <= URI_MAX ? pattern.exec(uri)?.slice(1) : undefined;
      return values && Object.fromEntries(names.map((variable, index) => [variable, values[index]!]));
    },
  };
}

/** Errors: the protocol's "resource not found" for a URI of no template and for what is not the caller's alike. */
export async function readResource(
  resources: readonly Resource[],
  uri: string,
  run: RunTool,
): Promise<ReadResourceResult> {
  for (const { definition, match } of resources) {
    const variables = match(uri);
    if (!variables) continue;
    const { tool, args, mimeType, contents } = definition;
    const output = outputOf(await run(tool, { ...args, ...variables }), uri);
    const content = contents?.(output, variables) ?? { text: JSON.stringify(output) };
    return { contents: [{ uri, mimeType, ...content }] };
  }
  throw new ResourceNotFoundError(uri.slice(0, URI_MAX));
}

/** The resources of the templates that are enumerated. */
export async function listResources(resources: readonly Resource[], run: RunTool): Promise<ListedResource[]> {
  const lists = resources
    .filter(({ definition }) => definition.enumerated)
    .map(async ({ definition: { uriTemplate, mimeType, complete = {} } }) => {
      const [[variable, completion]] = Object.entries(complete) as [[string, Completion]];
      const values = Array.isArray(completion) ? completion : await listed(completion, run);
      return values.map((name) => ({ name, mimeType, uri: uriTemplate.replace(`{${variable}}`, name) }));
    });
  return (await Promise.all(lists)).flat();
}

/** What the value of a template's argument may be, by what is typed already. */
export async function completeResource(
  resources: readonly Resource[],
  uriTemplate: string,
  argument: { name: string; value: string },
  run: RunTool,
): Promise<string[]> {
  const resource = resources.find(({ listed }) => listed.uriTemplate === uriTemplate);
  const completion = resource?.definition.complete?.[argument.name];
  if (!completion) return [];
  const values = Array.isArray(completion) ? completion : await listed(completion, run);
  return values.filter((value) => value.startsWith(argument.value)).slice(0, COMPLETIONS_MAX);
}

async function listed(
  { tool, args, values }: Exclude<Completion, string[]>,
  run: RunTool,
): Promise<string[]> {
  const result = await run(tool, args);
  const error = errorOf(result);
  // Who may not call the tool that lists has nothing to choose from; a fault is not an empty list.
  if (error && isNotOfTheCaller(error)) throw protocolErrorOf(error);
  return error ? [] : values(result.structuredContent as Output);
}

function outputOf(result: CallToolResult, uri: string): Output {
  const error = errorOf(result);
  if (!error) return result.structuredContent as Output;
  if (error.code.endsWith('_not_found') || error.code === 'invalid_arguments')
    throw new ResourceNotFoundError(uri);
  throw protocolErrorOf(error);
}

function errorOf({ isError, content: [block] }: CallToolResult): ErrorBody | undefined {
  if (!isError) return undefined;
  return (JSON.parse(block?.type === 'text' ? block.text : '{}') as { error: ErrorBody }).error;
}
