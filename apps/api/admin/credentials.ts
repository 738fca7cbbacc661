import { revokeGrant } from '@longhaul/oauth';
import { z } from 'zod';
import { grantFields, grantInPath, showGrant, showToken, tokenFields } from '../rest/credentials.js';
import { flag, found, id, inPath, page, pageOf, pageOfIds, paged, toPage } from '../rest/fields.js';
import { defineRoute } from '../rest/route.js';

const filters = z.strictObject({
  ...page,
  user_id: id.optional(),
  revoked: flag.optional().describe('true: only those that were revoked; false: only others'),
});

const listTokens = defineRoute({
  method: 'GET',
  path: '/admin/v1/tokens',
  summary: 'List developer tokens, newest first',
  needs: 'staff',
  query: filters,
  answer: pageOf(tokenFields),
  async handle({ db, query }) {
    const rows = await db.token.findMany(paged(whereOf(query), query));
    return toPage(rows, query, showToken);
  },
});

const endToken = defineRoute({
  method: 'DELETE',
  path: '/admin/v1/tokens/{id}',
  summary: 'Revoke a token, in force on its next request',
  description: 'Of one that was revoked before it changes nothing.',
  needs: 'staff',
  params: inPath,
  answer: tokenFields,
  async handle({ db, params }) {
    await db.token.updateMany({ where: { ...params, revokedAt: null }, data: { revokedAt: new Date() } });
    return showToken(found(await db.token.findUnique({ where: params })));
  },
});

const listGrants = defineRoute({
  method: 'GET',
  path: '/admin/v1/grants',
  summary: 'List what users have let OAuth clients do, newest first',
  needs: 'staff',
  query: filters.extend(pageOfIds(grantInPath.shape.id)),
  answer: pageOf(grantFields),
  async handle({ db, query }) {
    const rows = await db.oauthGrant.findMany(paged(whereOf(query), query));
    return toPage(rows, query, showGrant);
  },
});

const endGrant = defineRoute({
  method: 'DELETE',
  path: '/admin/v1/grants/{id}',
  summary: 'Revoke a grant and all tokens of it, in force on their next request',
  description: 'Of one that was revoked before it changes nothing.',
  needs: 'staff',
  params: grantInPath,
  answer: grantFields,
  async handle({ db, params }) {
    await revokeGrant(db, params.id);
    return showGrant(found(await db.oauthGrant.findUnique({ where: params })));
  },
});

const whereOf = ({ user_id: userId, revoked }: { user_id?: string; revoked?: boolean }) => ({
  userId,
  ...(revoked !== undefined && { revokedAt: revoked ? { not: null } : null }),
});

export const credentialRoutes = [listTokens, endToken, listGrants, endGrant];
