import { AppError, redactText } from '@longhaul/errors';
import type { Catalog, Tool } from './tool.js';

const LIST_MAX_CHARACTERS = 1_024;
const LIST_MAX_NAMES = 32;
/** Unknown names that one answer repeats. */
const FAULTS_NAMED = 5;
const QUERY_PARAMETERS = ['toolsets', 'read_only'];

/** Where a request says which tools it wants to see, each as HTTP has brought it. */
export interface Narrowing {
  /** Of `/mcp/x/{toolsets}` and `…/readonly`. */
  path: { toolsets?: string; readOnly?: boolean };
  query: Readonly<Record<string, unknown>>;
  headers: Readonly<Record<string, unknown>>;
}

/** Whether a request is about a tool. It never widens what the token may do. */
export type Selection = (tool: Tool) => boolean;

/**
 * What path, query (`toolsets`, `read_only`) and headers (`X-MCP-Toolsets`, `X-MCP-Readonly`) leave together: a toolset must be
 * in every list that is given, and one of them is enough to leave only tools that read. Without a list these are the
 * toolsets of the default set. Errors: `invalid_arguments`, also for an unknown query parameter, as a misspelt
 * `read_only` must not let writing through.
 */
export function parseSelection(
  { path, query, headers }: Narrowing,
  { toolsets }: Pick<Catalog, 'toolsets'>,
): Selection {
  const unknown = Object.keys(query).filter((name) => !QUERY_PARAMETERS.includes(name));
  if (unknown.length > 0) {
    throw invalid(`Unknown query parameter ${quote(unknown)}; known are ${QUERY_PARAMETERS.join(', ')}`);
  }
  const known = Object.keys(toolsets);
  const lists = [path.toolsets, query.toolsets, headers['x-mcp-toolsets']]
    .filter((list) => list !== undefined)
    .map((list) => parseList(list, known));
  const wanted = lists.length > 0 ? lists : [known.filter((name) => toolsets[name]?.default)];
  const flags = [query.read_only, headers['x-mcp-readonly']].map(parseFlag);
  const readOnly = path.readOnly || flags.includes(true);
  return ({ toolset, listed }) =>
    wanted.every((list) => list.includes(toolset)) &&
    (!readOnly || listed.annotations?.readOnlyHint === true);
}

function parseList(list: unknown, known: string[]): string[] {
  if (typeof list !== 'string') throw invalid('Give toolsets once, as names with commas between them');
  if (list.length > LIST_MAX_CHARACTERS) {
    throw invalid(`A list of toolsets has at most ${LIST_MAX_CHARACTERS} characters`);
  }
  const names = list.split(',').map((name) => name.trim());
  if (names.length > LIST_MAX_NAMES) throw invalid(`A list of toolsets has at most ${LIST_MAX_NAMES} names`);
  const unknown = names.filter((name) => name !== 'all' && !known.includes(name));
  if (unknown.length > 0) {
    const message = `Unknown toolset ${quote(unknown)}; known are ${known.join(', ')}, and all for every one`;
    throw invalid(message, { toolsets: known });
  }
  return names.includes('all') ? known : names;
}

function parseFlag(flag: unknown): boolean {
  if (flag !== undefined && flag !== 'true' && flag !== 'false') {
    throw invalid('Read-only mode (read_only, X-MCP-Readonly) is given once, as true or false');
  }
  return flag === 'true';
}

const invalid = (message: string, details?: Record<string, unknown>) =>
  new AppError('invalid_arguments', `${message}.`, details);

const quote = (names: string[]) =>
  names
    .slice(0, FAULTS_NAMED)
    .map((name) => JSON.stringify(redactText(name, 64)))
    .join(', ');
