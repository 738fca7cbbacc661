import { AppError } from '@longhaul/errors';
import { ProjectRole, type Transaction } from '@longhaul/persistence';
import { z } from 'zod';
import { id, notFound } from './fields.js';

export const role = z.enum(ProjectRole);

export const member = z.object({ user_id: z.string(), email: z.string(), role });

export const memberInPath = z.strictObject({ id, user_id: id });

/** The user of an e-mail address in lower case, as which it was not always stored. */
export async function userOfAddress(email: string, db: Transaction): Promise<{ id: string } | undefined> {
  const [user] = await db.$queryRaw<{ id: string }[]>`
    SELECT id FROM users WHERE lower(email) = ${email} ORDER BY created_at LIMIT 1`;
  return user;
}

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

/** Changes of one project wait for each other from here on, so that of two owners who leave at once one stays. */
export async function lockMembers(projectId: string, db: Transaction): Promise<void> {
  const locked = await db.$queryRaw<unknown[]>`SELECT FROM projects WHERE id = ${projectId}::uuid FOR UPDATE`;
  if (locked.length === 0) throw notFound();
}

/** Adds the member or changes their role; without a role they are removed. Errors: `conflict` for the last owner. */
export async function setMember(
  projectId: string,
  userId: string,
  role: ProjectRole | undefined,
  db: Transaction,
): Promise<void> {
  const key = { projectId_userId: { projectId, userId } };
  if (role === undefined) await db.projectMember.delete({ where: key });
  else await db.projectMember.upsert({ where: key, create: { projectId, userId, role }, update: { role } });
  if (await db.projectMember.count({ where: { projectId, role: 'owner' } })) return;
  throw new AppError('conflict', 'A project keeps at least one owner. Make someone else an owner first.');
}
