import { revokeGrant } from '@longhaul/oauth';
import { z } from 'zod';
import { grantFields, grantInPath, showGrant } from '../rest/credentials.js';
import { found, pageOf, pageOfIds, paged, toPage } from '../rest/fields.js';
import { defineRoute } from '../rest/route.js';

const list = defineRoute({
  method: 'GET',
  path: '/account/v1/grants',
  summary: 'List what you have let OAuth clients do, newest first',
  needs: 'account:read',
  query: z.strictObject({ ...pageOfIds(grantInPath.shape.id) }),
  answer: pageOf(grantFields),
  async handle({ db, query, caller: { userId } }) {
    const rows = await db.oauthGrant.findMany(paged({ userId }, query));
    return toPage(rows, query, showGrant);
  },
});

const revoke = defineRoute({
  method: 'DELETE',
  path: '/account/v1/grants/{id}',
  summary: 'Take back what you have let a client do, in force on its next request',
  description: 'Of a grant that was revoked before it changes nothing.',
  needs: 'projects:write',
  takesBack: true,
  params: grantInPath,
  answer: grantFields,
  async handle({ db, params, caller }) {
    const { id } = found(await db.oauthGrant.findFirst({ where: { ...params, userId: caller.userId } }));
    await revokeGrant(db, id);
    return showGrant(await db.oauthGrant.findUniqueOrThrow({ where: { id } }));
  },
});

export const grantRoutes = [list, revoke];
