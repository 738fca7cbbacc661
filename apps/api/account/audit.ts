import { z } from 'zod';
import { eventPage, ownEvent, ownFilters, showEvent, toFilter } from '../rest/events.js';
import { pageOf } from '../rest/fields.js';
import { defineRoute } from '../rest/route.js';
import { requireUnrestricted } from '../rest/staff.js';

const history = defineRoute({
  method: 'GET',
  path: '/account/v1/audit',
  summary: 'Read what was done in your name, newest first',
  description:
    'Takes a token that is not restricted to projects or VMs. What others did to what is yours is not in it.',
  needs: 'account:read',
  query: z.strictObject({ ...eventPage, ...ownFilters }),
  answer: pageOf(ownEvent),
  async handle({ query: { limit, after, ...asked }, services, caller, db }) {
    await requireUnrestricted(caller, db);
    const filter = { ...toFilter(asked), userId: caller.userId };
    const { events, cursor } = await services.audit.search(filter, { limit, cursor: after });
    return { items: events.map(showEvent), next: cursor };
  },
});

export const auditRoutes = [history];
