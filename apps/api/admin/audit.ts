import type { AuditEvent } from '@longhaul/persistence';
import { z } from 'zod';
import { event, eventPage, filters, showEvent, toFilter } from '../rest/events.js';
import { pageOf } from '../rest/fields.js';
import { defineRoute } from '../rest/route.js';

const search = defineRoute({
  method: 'GET',
  path: '/admin/v1/audit',
  summary: 'Search the audit, newest first',
  description:
    'An event must have all that is asked for. Give from and to: the search is fast within a month.',
  needs: 'staff',
  query: z.strictObject({ ...eventPage, ...filters }),
  answer: pageOf(event),
  async handle({ query: { limit, after, ...asked }, services }) {
    const { events, cursor } = await services.audit.search(toFilter(asked), { limit, cursor: after });
    return { items: events.map(showEvent), next: cursor };
  },
});

const FORMATS = {
  ndjson: { contentType: 'application/x-ndjson', head: '', toLine: toJsonLine },
  csv: {
    contentType: 'text/csv; charset=utf-8',
    head: `${Object.keys(event.shape).join(',')}\r\n`,
    toLine: toCsvLine,
  },
};

/** Characters that go out together. */
const CHUNK = 16_384;

const download = defineRoute({
  method: 'GET',
  path: '/admin/v1/audit/export',
  summary: 'Download all events of a search, newest first',
  description:
    'A stream of any length, as fast as it is read. One that ends without its last chunk was cut off: ask again for what ' +
    'came before its last event. In CSV a cell that a spreadsheet would take for a formula begins with an apostrophe.',
  needs: 'staff',
  query: z.strictObject({ format: z.enum(['ndjson', 'csv']).default('ndjson'), ...filters }),
  downloads: Object.values(FORMATS).map(({ contentType }) => contentType),
  async handle({ query: { format, ...asked }, services }) {
    const { contentType, head, toLine } = FORMATS[format];
    const chunks = inChunks(head, services.audit.export(toFilter(asked)), toLine);
    return { contentType, filename: `audit.${format}`, chunks };
  },
});

async function* inChunks(
  head: string,
  events: AsyncIterable<AuditEvent>,
  toLine: (row: AuditEvent) => string,
): AsyncGenerator<string> {
  let chunk = head;
  for await (const row of events) {
    chunk += toLine(row);
    if (chunk.length < CHUNK) continue;
    yield chunk;
    chunk = '';
  }
  yield chunk;
}

function toJsonLine(row: AuditEvent): string {
  return `${JSON.stringify(event.parse(showEvent(row)))}\n`;
}

function toCsvLine(row: AuditEvent): string {
  const shown: Record<string, unknown> = showEvent(row);
  return `${Object.keys(event.shape)
    .map((key) => cellOf(shown[key]))
    .join(',')}\r\n`;
}

/** Quoted, and never a formula: callers choose what stands in many of these cells. */
function cellOf(value: unknown): string {
  if (value === null || value === undefined) return '';
  const text = typeof value === 'object' ? JSON.stringify(value) : String(value);
  const harmless = /^\s*[=+\-@|%\t\r\n＝＋－＠]/.test(text) ? `'${text}` : text;
  return `"${harmless.replaceAll('"', '""')}"`;
}

export const auditRoutes = [search, download];
