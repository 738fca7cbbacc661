import { ProjectRole, type Transaction } from '@longhaul/persistence';
import { z } from 'zod';
import { id } from './fields.js';

export const role = z.enum(ProjectRole);

export const member = z.object({ user_id: z.string(), email: z.string(), role });

export const memberInPath = z.strictObject({ id, user_id: id });

export const memberOf = (projectId: string, userId: string, db: Transaction) =>
  db.projectMember.findUnique({ where: { projectId_userId: { projectId, userId } } });

/** All members of a project, owners first; there are as many as have been added, 1,000 at most are shown. */
export async function membersOf(projectId: string, db: Transaction): Promise<z.input<typeof member>[]> {
  const rows = await db.projectMember.findMany({
    where: { projectId },
    include: { user: true },
    orderBy: [{ role: 'asc' }, { userId: 'asc' }],
    take: 1_000,
  });
  return rows.map(({ userId, role, user }) => ({ user_id: userId, email: user.email, role }));
}
