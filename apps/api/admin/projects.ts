import { lockMembers, projectLimits, setMember, usedOf } from '@longhaul/access';
import { ConfirmationPolicy, SYSTEM_ID, newId } from '@longhaul/persistence';
import { z } from 'zod';
import {
  conflict,
  found,
  id,
  inPath,
  page,
  pageOf,
  paged,
  shown,
  text,
  time,
  toPage,
  notFound,
} from '../rest/fields.js';
import { member, memberInPath, memberOf, membersOf, role } from '../rest/members.js';
import { defineRoute } from '../rest/route.js';

const { vmLimit, cpuLimit, memoryLimitMb, diskLimitGb, liveJobLimit, concurrency } = projectLimits.shape;
const limits = {
  vm_limit: vmLimit,
  cpu_limit: cpuLimit,
  memory_limit_mb: memoryLimitMb,
  disk_limit_gb: diskLimitGb,
  live_job_limit: liveJobLimit,
  concurrency: concurrency.describe('Jobs that may be delivered or running at once, in each queue'),
};

const project = z.object({
  id: z.string(),
  name: z.string(),
  customer: z.string().nullable().describe('Billing account'),
  confirmation: z.enum(ConfirmationPolicy).describe('Whose word counts where a confirmation is asked for'),
  ...limits,
  created_at: time,
});

const customer = text(128).nullable();

const list = defineRoute({
  method: 'GET',
  path: '/admin/v1/projects',
  summary: 'List projects, newest first',
  needs: 'staff',
  query: z.strictObject({ ...page, customer: text(128).optional(), user_id: id.optional() }),
  answer: pageOf(project),
  async handle({ db, query }) {
    const { customer, user_id: userId } = query;
    const where = { id: { not: SYSTEM_ID }, customer, ...(userId && { members: { some: { userId } } }) };
    const rows = await db.project.findMany(paged(where, query));
    return toPage(rows, query, shown);
  },
});

const show = defineRoute({
  method: 'GET',
  path: '/admin/v1/projects/{id}',
  summary: 'Show a project, its members, and what it uses of its limits',
  needs: 'staff',
  params: inPath,
  answer: project.extend({ used: z.object({ ...limits, concurrency: z.int() }), members: z.array(member) }),
  async handle({ db, params, about }) {
    const row = found(await db.project.findUnique({ where: params }));
    about({ projectId: row.id });
    return { ...shown(row), used: shown(await usedOf(row.id, db)), members: await membersOf(row.id, db) };
  },
});

const create = defineRoute({
  method: 'POST',
  path: '/admin/v1/projects',
  summary: 'Make a project',
  needs: 'staff',
  body: z.strictObject({ name: text(128), owner_id: id, customer: customer.optional() }),
  answer: project,
  status: 201,
  async handle({ db, body: { name, owner_id, customer }, about }) {
    const owner = found(await db.user.findUnique({ where: { id: owner_id } }));
    const data = {
      id: newId(),
      name,
      customer,
      members: { create: { userId: owner.id, role: 'owner' as const } },
    };
    const row = await db.project.create({ data }).catch(conflict('There is a project of that name.'));
    about({ projectId: row.id });
    return shown(row);
  },
});

const change = defineRoute({
  method: 'PATCH',
  path: '/admin/v1/projects/{id}',
  summary: 'Set the customer, the confirmation policy or the limits of a project',
  needs: 'staff',
  params: inPath,
  body: z.strictObject({
    customer: customer.optional(),
    confirmation: z.enum(ConfirmationPolicy).optional(),
    ...z.object(limits).partial().shape,
  }),
  answer: project,
  async handle({ db, params, body, about }) {
    found(await db.project.findUnique({ where: params }));
    about({ projectId: params.id });
    const { customer, confirmation } = body;
    const data = {
      customer,
      confirmation,
      vmLimit: body.vm_limit,
      cpuLimit: body.cpu_limit,
      memoryLimitMb: body.memory_limit_mb,
      diskLimitGb: body.disk_limit_gb,
      liveJobLimit: body.live_job_limit,
      concurrency: body.concurrency,
    };
    return shown(await db.project.update({ where: params, data }));
  },
});

const putMember = defineRoute({
  method: 'PUT',
  path: '/admin/v1/projects/{id}/members/{user_id}',
  summary: 'Add a member or change their role',
  needs: 'staff',
  params: memberInPath,
  body: z.strictObject({ role }),
  answer: z.object({ members: z.array(member) }),
  async handle({ db, params: { id, user_id: userId }, body, about }) {
    if (!(await lockMembers(id, db))) throw notFound();
    about({ projectId: id });
    found(await db.user.findUnique({ where: { id: userId } }));
    await setMember(id, userId, body.role, db);
    return { members: await membersOf(id, db) };
  },
});

const removeMember = defineRoute({
  method: 'DELETE',
  path: '/admin/v1/projects/{id}/members/{user_id}',
  summary: 'Remove a member',
  needs: 'staff',
  params: memberInPath,
  answer: z.object({ members: z.array(member) }),
  async handle({ db, params: { id, user_id: userId }, about }) {
    if (!(await lockMembers(id, db))) throw notFound();
    about({ projectId: id });
    found(await memberOf(id, userId, db));
    await setMember(id, userId, undefined, db);
    return { members: await membersOf(id, db) };
  },
});

export const projectRoutes = [list, show, create, change, putMember, removeMember];
