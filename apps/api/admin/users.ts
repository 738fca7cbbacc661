import { PASSWORD_LENGTH, hashPassword, userOfAddress } from '@longhaul/access';
import { AppError } from '@longhaul/errors';
import { endLogins } from '@longhaul/oauth';
import { AccountStanding, newId } from '@longhaul/persistence';
import { z } from 'zod';
import { conflict, email, found, inPath, page, pageOf, paged, shown, time, toPage } from '../rest/fields.js';
import { defineRoute } from '../rest/route.js';

const standing = z.enum(AccountStanding);

const user = z.object({
  id: z.string(),
  email: z.string(),
  staff: z.boolean(),
  standing,
  created_at: time,
});

const password = z
  .string()
  .min(PASSWORD_LENGTH.min)
  .max(PASSWORD_LENGTH.max)
  .describe('To log in with when an MCP client asks for access; only its hash is kept');

const memberships = z.array(z.object({ project_id: z.string(), name: z.string(), role: z.string() }));

const list = defineRoute({
  method: 'GET',
  path: '/admin/v1/users',
  summary: 'List users, newest first',
  needs: 'staff',
  query: z.strictObject({ ...page, email: email.optional(), standing: standing.optional() }),
  answer: pageOf(user),
  async handle({ db, query }) {
    const { email, standing } = query;
    const user = email === undefined ? undefined : await userOfAddress(email, db);
    if (email !== undefined && !user) return { items: [] };
    const rows = await db.user.findMany(paged({ id: user?.id, standing }, query));
    return toPage(rows, query, shown);
  },
});

const show = defineRoute({
  method: 'GET',
  path: '/admin/v1/users/{id}',
  summary: 'Show a user and their projects',
  needs: 'staff',
  params: inPath,
  answer: user.extend({ projects: memberships }),
  async handle({ db, params }) {
    const include = {
      projects: { include: { project: true }, orderBy: { projectId: 'asc' }, take: 200 },
    } as const;
    const { projects, ...row } = found(await db.user.findUnique({ where: params, include }));
    return {
      ...shown(row),
      projects: projects.map(({ projectId, role, project: { name } }) => ({
        project_id: projectId,
        name,
        role,
      })),
    };
  },
});

const create = defineRoute({
  method: 'POST',
  path: '/admin/v1/users',
  summary: 'Make a user',
  needs: 'staff',
  body: z.strictObject({ email, password: password.optional(), staff: z.boolean().default(false) }),
  answer: user,
  status: 201,
  async handle({ db, body }) {
    if (await userOfAddress(body.email, db))
      throw new AppError('conflict', 'There is a user of that address.');
    const row = await db.user
      .create({ data: { id: newId(), ...(await stored(body)) } })
      .catch(conflict('There is a user of that address.'));
    return shown(row);
  },
});

const change = defineRoute({
  method: 'PATCH',
  path: '/admin/v1/users/{id}',
  summary: 'Suspend, flag or restore a user, make them staff or no longer, set their password',
  description:
    'A password that is set logs its user out everywhere and ends what they have let OAuth clients do, for the next request; ' +
    'developer tokens and clients of machines hold. Nothing works for a suspended account from its next request on; a flagged one may look, but change nothing. ' +
    'Nobody changes their own account, so that there is always staff left.',
  needs: 'staff',
  params: inPath,
  body: z.strictObject({
    standing: standing.optional(),
    staff: z.boolean().optional(),
    password: password.optional(),
  }),
  answer: user.extend({
    grants_ended: z
      .int()
      .optional()
      .describe('With a password: how many grants to OAuth clients are over now'),
  }),
  async handle({ db, params, body, caller }) {
    if (params.id === caller.userId)
      throw new AppError('conflict', 'This is your own account; ask another of the staff.');
    found(await db.user.findUnique({ where: params }));
    const row = await db.user.update({ where: params, data: await stored(body) });
    if (body.password === undefined) return shown(row);
    return { ...shown(row), grants_ended: await endLogins(db, params.id) };
  },
});

/** With the hash in place of the password. */
const stored = async <Body extends { password?: string }>({ password, ...body }: Body) => ({
  ...body,
  ...(password !== undefined && { passwordHash: await hashPassword(password) }),
});

export const userRoutes = [list, show, create, change];
