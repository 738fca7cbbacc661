import type { IncomingHttpHeaders } from 'node:http';
import { PROTOCOL_VERSION_META_KEY } from '@modelcontextprotocol/server';
import type { Tool } from './tool.js';

/** JSON-RPC's code for headers and body that disagree; it goes with HTTP 400. */
const HEADER_MISMATCH = -32020;
const SENTINEL = /^=\?base64\?(.*)\?=$/;

interface Refusal {
  jsonrpc: '2.0';
  id: string | number | null;
  error: { code: number; message: string; data: object };
}

interface Message {
  id?: string | number;
  method?: string;
  params?: { name?: string; arguments?: Record<string, unknown>; _meta?: Record<string, unknown> };
}

/**
 * Compares the arguments that a tool wants repeated as headers (`x-mcp-header` in its schema), by which proxies route, with
 * those headers. The SDK does so for tools that are registered with it only.
 */
export class ParamHeaders {
  /** By the tool's name: the header of each argument that has one. */
  private readonly declared = new Map<string, [argument: string, header: string][]>();

  constructor(tools: readonly Tool[]) {
    for (const { name, listed } of tools) {
      const headers = Object.entries(listed.inputSchema.properties ?? {}).flatMap(([argument, schema]) => {
        const header = (schema as Record<string, unknown>)['x-mcp-header'];
        return typeof header === 'string' ? [[argument, `Mcp-Param-${header}`] as [string, string]] : [];
      });
      if (headers.length > 0) this.declared.set(name, headers);
    }
  }

  /** The refusal of a call whose headers are not those of its body; the older revision knows no such headers. */
  check(body: unknown, headers: IncomingHttpHeaders): Refusal | undefined {
    if (this.declared.size === 0) return undefined;
    const { id = null, method, params } = (body ?? {}) as Message;
    if (method !== 'tools/call' || params?._meta?.[PROTOCOL_VERSION_META_KEY] === undefined) return undefined;
    for (const [argument, header] of this.declared.get(params.name ?? '') ?? []) {
      const value = params.arguments?.[argument];
      if (value === undefined || value === null) continue;
      const fault = faultOf(headers[header.toLowerCase()], value);
      if (!fault) continue;
      const message = `Bad Request: the header ${header} ${fault} of the argument ${argument}`;
      const error = { code: HEADER_MISMATCH, message, data: { mismatch: { header, body: argument } } };
      return { jsonrpc: '2.0', id, error };
    }
    return undefined;
  }
}

function faultOf(header: string | string[] | undefined, value: unknown): string | undefined {
  if (typeof header !== 'string') return 'is missing beside the value';
  const encoded = SENTINEL.exec(header)?.[1];
  const given = encoded === undefined ? header : decode(encoded);
  if (given === undefined) return 'is not proper Base64 of the value';
  const same = typeof value === 'number' ? Number(given) === value : given === String(value);
  return same ? undefined : 'is not the value';
}

/** Undefined for what is not the one right encoding of UTF-8 text. */
function decode(encoded: string): string | undefined {
  const bytes = Buffer.from(encoded, 'base64');
  if (bytes.toString('base64') !== encoded) return undefined;
  const text = bytes.toString('utf8');
  return Buffer.from(text).equals(bytes) ? text : undefined;
}
