import { SCOPES, type Caller } from '@longhaul/access';
import { AppError } from '@longhaul/errors';
import type { Token, Transaction } from '@longhaul/persistence';

/** What a developer token is restricted to: all that the account may when both lists are empty. */
export type Restriction = Pick<Token, 'projectIds' | 'vmIds' | 'expiresAt'>;

export const restrictionOf = ({ tokenId }: Caller, db: Transaction): Promise<Restriction> =>
  db.token.findUniqueOrThrow({ where: { id: tokenId } });

/** Errors: `forbidden_scope` for a token that is for some projects or VMs only. */
export async function requireUnrestricted(caller: Caller, db: Transaction): Promise<void> {
  const { projectIds, vmIds } = await restrictionOf(caller, db);
  if (projectIds.length === 0 && vmIds.length === 0) return;
  throw new AppError('forbidden_scope', 'This needs a token that is not restricted to projects or VMs.');
}

/**
 * Staff by a token that nothing was taken from: one that was narrowed for some use must not open everybody's data. Errors:
 * `forbidden_staff`, `forbidden_scope`.
 */
export async function requireStaff(caller: Caller, db: Transaction): Promise<void> {
  if (!caller.staff) throw new AppError('forbidden_staff', 'This is for the staff of this installation.');
  if (!SCOPES.every((scope) => caller.scopes.includes(scope)))
    throw new AppError('forbidden_scope', 'This needs a token of all scopes.', { required_scopes: SCOPES });
  await requireUnrestricted(caller, db);
}
