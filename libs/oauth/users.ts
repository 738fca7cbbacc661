import { AppError } from '@longhaul/errors';
import { newId, type Database } from '@longhaul/persistence';

/** Whom the upstream provider says that somebody is. */
export interface UpstreamIdentity {
  issuer: string;
  subject: string;
  email?: string;
  emailVerified: boolean;
}

const EMAIL = /^[^\s\p{C}@]{1,64}@[^\s\p{C}@]{1,190}$/u;

/**
 * The user behind an upstream identity. One that is new here belongs to the user of the same address, when the provider has
 * verified it; else, with `create`, a user with a project of their own is made. Errors: `unauthenticated`.
 */
export async function userOfIdentity(
  db: Database,
  { issuer, subject, email, emailVerified }: UpstreamIdentity,
  create: boolean,
): Promise<{ userId: string }> {
  const known = await db.identity.findUnique({ where: { issuer_subject: { issuer, subject } } });
  if (known) return activeUser(db, known.userId);
  if (email === undefined || !EMAIL.test(email))
    throw refused('Your provider does not tell your e-mail address, so no account can be made.');
  // Prisma would take `_` and `%` in it for wildcards.
  const [namesake] = await db.$queryRaw<{ id: string }[]>`
    SELECT id FROM users WHERE lower(email) = lower(${email}) ORDER BY email = ${email} DESC LIMIT 1`;
  if (namesake && !emailVerified)
    throw refused('There is an account of your e-mail address, but your provider has not verified it.');
  if (!namesake && !create) throw refused('You have no account here. Its operator can make one.');
  const userId = await db.$transaction(async (tx) => {
    const id = namesake?.id ?? newId();
    if (!namesake) {
      await tx.user.create({ data: { id, email } });
      const project = await tx.project.create({ data: { id: newId(), name: `${email} ${id.slice(0, 8)}` } });
      await tx.projectMember.create({ data: { projectId: project.id, userId: id, role: 'owner' } });
    }
    await tx.identity.create({ data: { issuer, subject, userId: id } });
    return id;
  });
  return activeUser(db, userId);
}

async function activeUser(db: Database, id: string): Promise<{ userId: string }> {
  const user = await db.user.findFirst({ where: { id, standing: { not: 'suspended' } } });
  if (!user) throw refused('Your account is suspended.');
  return { userId: id };
}

const refused = (message: string) => new AppError('unauthenticated', message);
