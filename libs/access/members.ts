import { AppError } from '@longhaul/errors';
import type { ProjectRole, Transaction } from '@longhaul/persistence';

/** The user of an e-mail address, which is the same in any case of its letters. Prisma would take `_` and `%` in it for wildcards. */
export async function userOfAddress(email: string, db: Transaction): Promise<{ id: string } | undefined> {
  const [user] = await db.$queryRaw<{ id: string }[]>`
    SELECT id FROM users WHERE lower(email) = lower(${email}) ORDER BY email = ${email} DESC, created_at LIMIT 1`;
  return user;
}

/**
 * Changes of one project wait for each other from here on, so that of two owners who leave at once one stays. False when there
 * is no such project.
 */
export async function lockMembers(projectId: string, db: Transaction): Promise<boolean> {
  const locked = await db.$queryRaw<unknown[]>`SELECT FROM projects WHERE id = ${projectId}::uuid FOR UPDATE`;
  return locked.length > 0;
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
