import { PAGE_MAX, type AuditFilter } from '@longhaul/audit';
import type { AuditEvent } from '@longhaul/persistence';
import { z } from 'zod';
import { id, shown, text, time } from './fields.js';

/** How answers show an event of the audit to whoever caused it. */
export const ownEvent = z.object({
  id: z.string(),
  at: time,
  event: z.string(),
  token_id: z.string().nullable().describe('The developer token, or the grant of OAuth'),
  client_id: z.string().nullable().describe('Of OAuth'),
  project_id: z.string().nullable(),
  vm_id: z.string().nullable(),
  job_id: z.string().nullable(),
  tool: z.string().nullable(),
  arguments: z.unknown().describe('Redacted and bounded'),
  result: z.string().nullable(),
  code: z.string().nullable(),
  duration_ms: z.int().nullable(),
  confirmed_by: z.string().nullable(),
  request_id: z.string().nullable(),
  client_name: z.string().nullable(),
  client_version: z.string().nullable(),
  ip: z.string().nullable(),
  user_agent: z.string().nullable(),
});

/** The same, to staff. */
export const event = ownEvent.extend({
  user_id: z.string().nullable(),
  customer: z.string().nullable().describe('Billing account of the project at that time'),
  trace_id: z.string().nullable(),
});

export const showEvent = (row: AuditEvent): z.input<typeof event> => ({ ...shown(row), id: String(row.id) });

const word = text(256).optional();

export const ownFilters = {
  from: time.optional().describe('From then on'),
  to: time.optional().describe('Before then'),
  tool: word,
  result: word,
  code: word,
  event: word,
  project_id: id.optional(),
  vm_id: id.optional(),
  job_id: id.optional(),
  token_id: id.optional(),
  client_id: word,
  ip: word,
  request_id: word,
  text: text(256)
    .optional()
    .describe(
      'Words that all begin words of tool, user agent or arguments; needs from and to, at most 31 days apart',
    ),
};

export const filters = { ...ownFilters, user_id: id.optional(), customer: word, trace_id: word };

export const eventPage = {
  limit: z.coerce.number().int().min(1).max(PAGE_MAX).default(50),
  after: z.string().max(200).optional().describe('The next of the page before'),
};

type Filters = Partial<Record<keyof typeof filters, string>>;

/** What the audit is asked for; a query has the same keys, written otherwise. */
export const toFilter = ({ from, to, ...rest }: Filters): AuditFilter => ({
  ...Object.fromEntries(
    Object.entries(rest).map(([key, value]) => [
      key.replaceAll(/_(\w)/g, (_match, letter: string) => letter.toUpperCase()),
      value,
    ]),
  ),
  ...(from !== undefined && { from: new Date(from) }),
  ...(to !== undefined && { to: new Date(to) }),
});
