import { SCOPES, type Caller } from '@longhaul/access';
import { AppError } from '@longhaul/errors';
import type { Token, Transaction } from '@longhaul/persistence';

/** What a developer token is restricted to: all that the account may when both lists are empty. */
export type Restriction = Pick<Token, 'projectIds' | 'vmIds' | 'expiresAt'>;

export const restrictionOf = ({ tokenId }: Caller, db: Transaction): Promise<Restriction> =>
  db.token.findUniqueOrThrow({ where: { id: tokenId } });

/**
 * Staff by a token that nothing was taken from: one that was narrowed for some use must not open everybody's data. Errors:
 * `forbidden_staff`, `forbidden_scope`.
 */
export async function requireStaff(caller: Caller, db: Transaction): Promise<void> {
  if (!caller.staff) throw new AppError('forbidden_staff', 'This is for the staff of this installation.');
  const { projectIds, vmIds } = await restrictionOf(caller, db);
  const isWhole = SCOPES.every((scope) => caller.scopes.includes(scope));
  if (isWhole && projectIds.length === 0 && vmIds.length === 0) return;
  throw new AppError(
    'forbidden_scope',
    'This needs a token of all scopes that is not restricted to projects or VMs.',
    {
      required_scopes: SCOPES,
    },
  );
}
