import { lockMembers, setMember, userOfAddress, type Caller } from '@longhaul/access';
import { AppError } from '@longhaul/errors';
import type { ProjectRole } from '@longhaul/persistence';
import { z } from 'zod';
import { email, found, inPath, notFound, time } from '../rest/fields.js';
import { member, memberInPath, memberOf, membersOf, role } from '../rest/members.js';
import { defineRoute } from '../rest/route.js';

const me = defineRoute({
  method: 'GET',
  path: '/account/v1/me',
  summary: 'Show yourself, and what the credential at hand may do',
  needs: 'account:read',
  answer: z.object({
    user_id: z.string(),
    email: z.string(),
    staff: z.boolean(),
    standing: z.string(),
    credential: z.object({ kind: z.string(), id: z.string(), scopes: z.array(z.string()) }),
  }),
  async handle({ caller: { userId, email, staff, standing, kind, tokenId, scopes } }) {
    return { user_id: userId, email, staff, standing, credential: { kind, id: tokenId, scopes } };
  },
});

const list = defineRoute({
  method: 'GET',
  path: '/account/v1/projects',
  summary: 'List your projects and your role in each',
  needs: 'projects:read',
  answer: z.object({
    items: z.array(z.object({ id: z.string(), name: z.string(), role, created_at: time })),
  }),
  async handle({ db, caller }) {
    const rows = await db.project.findMany({
      where: { id: { in: caller.projectIds } },
      orderBy: { name: 'asc' },
    });
    return {
      items: rows.map(({ id, name, createdAt }) => ({
        id,
        name,
        role: caller.roles[id]!,
        created_at: createdAt.toISOString(),
      })),
    };
  },
});

const members = z.object({ members: z.array(member) });

const listMembers = defineRoute({
  method: 'GET',
  path: '/account/v1/projects/{id}/members',
  summary: 'List the members of one of your projects',
  needs: 'projects:read',
  params: inPath,
  answer: members,
  async handle({ db, params, caller, about }) {
    requireMember(caller, params.id);
    about({ projectId: params.id });
    return { members: await membersOf(params.id, db) };
  },
});

const add = defineRoute({
  method: 'POST',
  path: '/account/v1/projects/{id}/members',
  summary: 'Add a user to one of your projects, by their e-mail address',
  description:
    'For owners and admins; only owners add owners. Somebody who is a member already is a `conflict`.',
  needs: 'projects:write',
  params: inPath,
  body: z.strictObject({ email, role }),
  answer: members,
  status: 201,
  async handle({ db, params: { id }, body, caller, about }) {
    requireMember(caller, id);
    about({ projectId: id });
    await lockMembers(id, db);
    requireManager(caller, id, body.role);
    const { id: userId } = found(await userOfAddress(body.email, db));
    if (await memberOf(id, userId, db))
      throw new AppError('conflict', 'This user is a member already. Change their role instead.');
    await setMember(id, userId, body.role, db);
    return { members: await membersOf(id, db) };
  },
});

const changeRole = defineRoute({
  method: 'PATCH',
  path: '/account/v1/projects/{id}/members/{user_id}',
  summary: 'Change the role of a member of one of your projects',
  description: 'For owners and admins; only owners make and change owners. The last owner stays one.',
  needs: 'projects:write',
  params: memberInPath,
  body: z.strictObject({ role }),
  answer: members,
  async handle({ db, params: { id, user_id: userId }, body, caller, about }) {
    requireMember(caller, id);
    about({ projectId: id });
    await lockMembers(id, db);
    const now = found(await memberOf(id, userId, db));
    requireManager(caller, id, body.role, now.role);
    await setMember(id, userId, body.role, db);
    return { members: await membersOf(id, db) };
  },
});

const remove = defineRoute({
  method: 'DELETE',
  path: '/account/v1/projects/{id}/members/{user_id}',
  summary: 'Remove a member from one of your projects, or leave it',
  description: 'For owners and admins; only owners remove owners. Everybody may leave; the last owner stays.',
  needs: 'projects:write',
  params: memberInPath,
  answer: members,
  async handle({ db, params: { id, user_id: userId }, caller, about }) {
    requireMember(caller, id);
    about({ projectId: id });
    await lockMembers(id, db);
    const now = found(await memberOf(id, userId, db));
    if (userId !== caller.userId) requireManager(caller, id, now.role);
    await setMember(id, userId, undefined, db);
    return { members: userId === caller.userId ? [] : await membersOf(id, db) };
  },
});

/** A credential that sees only some VMs of its projects has no say in who else sees them. Errors: `not_found`. */
function requireMember({ projectIds, vmIds }: Caller, projectId: string): void {
  if (!projectIds.includes(projectId) || vmIds) throw notFound();
}

/** Roles are those of the request's beginning; `touched` are the roles given, changed or taken away. Errors: `forbidden_role`. */
function requireManager({ roles }: Caller, projectId: string, ...touched: ProjectRole[]): void {
  const own = roles[projectId];
  if (own === 'owner' || (own === 'admin' && !touched.includes('owner'))) return;
  const required = touched.includes('owner') ? 'owner' : 'admin';
  throw new AppError('forbidden_role', `This needs the role ${required} in the project.`, {
    required_role: required,
  });
}

export const projectRoutes = [me, list, listMembers, add, changeRole, remove];
