import { createMachineClient, ofMachines, revokeGrant } from '@longhaul/oauth';
import type { Transaction } from '@longhaul/persistence';
import { z } from 'zod';
import { grantFields, grantInPath, showGrant } from '../rest/credentials.js';
import { flag, found, id, notFound, pageOf, pageOfIds, paged, scopes, text, toPage } from '../rest/fields.js';
import { defineRoute } from '../rest/route.js';

const ids = z.array(id).max(100).default([]);

const list = defineRoute({
  method: 'GET',
  path: '/admin/v1/clients',
  summary: 'List the OAuth clients of machines, newest first',
  needs: 'staff',
  query: z.strictObject({
    ...pageOfIds(grantInPath.shape.id),
    user_id: id.optional(),
    revoked: flag.optional().describe('true: only those that were revoked; false: only others'),
  }),
  answer: pageOf(grantFields),
  async handle({ db, query }) {
    const { user_id: userId, revoked } = query;
    const revokedAt = revoked === undefined ? undefined : revoked ? { not: null } : null;
    const rows = await db.oauthGrant.findMany(paged({ userId, revokedAt, ...ofMachines(db) }, query));
    return toPage(rows, query, showGrant);
  },
});

const create = defineRoute({
  method: 'POST',
  path: '/admin/v1/clients',
  summary: 'Make an OAuth client for a machine, whose secret is shown this once',
  description:
    'It gets its tokens at /oauth/token by client_credentials and acts in the name of the user, within these scopes and, ' +
    'where any are given, these projects and VMs of theirs.',
  needs: 'staff',
  body: z.strictObject({
    name: text(100),
    user_id: id,
    scopes: scopes.min(1).max(50),
    project_ids: ids,
    vm_ids: ids,
  }),
  answer: grantFields.extend({ client_secret: z.string().describe('Nobody can show it again') }),
  status: 201,
  async handle({ db, body: { name, user_id: userId, scopes, project_ids, vm_ids } }) {
    found(await db.user.findUnique({ where: { id: userId } }));
    const [projectIds, vmIds] = [[...new Set(project_ids)], [...new Set(vm_ids)]];
    await requireTheirs(db, userId, projectIds, vmIds);
    const options = { userId, scopes: [...new Set(scopes)], projectIds, vmIds };
    const { clientId, clientSecret } = await createMachineClient(db, name, options);
    const grant = await db.oauthGrant.findUniqueOrThrow({ where: { id: clientId } });
    return { ...showGrant(grant), client_secret: clientSecret };
  },
});

const revoke = defineRoute({
  method: 'DELETE',
  path: '/admin/v1/clients/{id}',
  summary: 'Revoke the client of a machine and its tokens, in force on their next request',
  description: 'Of one that was revoked before it changes nothing.',
  needs: 'staff',
  params: grantInPath,
  answer: grantFields,
  async handle({ db, params }) {
    const { id } = found(await db.oauthGrant.findFirst({ where: { ...params, ...ofMachines(db) } }));
    await revokeGrant(db, id);
    return showGrant(await db.oauthGrant.findUniqueOrThrow({ where: { id } }));
  },
});

async function requireTheirs(db: Transaction, userId: string, projectIds: string[], vmIds: string[]) {
  const projects = await db.projectMember.count({ where: { userId, projectId: { in: projectIds } } });
  const project = { members: { some: { userId } } };
  const vms = await db.vm.count({ where: { id: { in: vmIds }, project } });
  if (projects < projectIds.length || vms < vmIds.length) throw notFound();
}

export const clientRoutes = [list, create, revoke];
