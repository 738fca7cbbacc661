import { Injectable } from '@nestjs/common';
import { AppError } from '@longhaul/errors';
import { Database, Prisma, VM_COLUMNS, parseId, type Vm } from '@longhaul/persistence';
import { callerLookup, type Caller } from './caller.js';
import { hashToken, isToken } from './tokens.js';

/** Longest list of matches that an ambiguous reference names. */
const MATCHES_NAMED = 10;

@Injectable()
export class Access {
  private readonly callerOf;

  constructor(private readonly db: Database) {
    this.callerOf = callerLookup(db);
  }

  /** The caller behind a developer token, asked of the database every time so that a revocation holds at once. */
  async authenticate(token: string): Promise<Caller | undefined> {
    return isToken(token) ? this.callerOf({ hash: hashToken(token) }) : undefined;
  }

  /** As HTTP Basic has it: the token as a password, of the user of that e-mail address. */
  async authenticateBasic(email: string, token: string): Promise<Caller | undefined> {
    const caller = await this.authenticate(token);
    return caller?.email.toLowerCase() === email.toLowerCase() ? { ...caller, kind: 'basic' } : undefined;
  }

  /**
   * The caller behind an access token of OAuth, which has been verified and names its grant: what the token may do, and no
   * more than the grant still allows.
   */
  async authenticateGrant(
    grantId: string,
    token: { scopes: readonly string[]; expiresAt: Date },
  ): Promise<Caller | undefined> {
    const caller = await this.callerOf({ grantId });
    if (!caller || token.expiresAt <= caller.seenAt) return undefined;
    const scopes = caller.scopes.filter((scope) => token.scopes.includes(scope));
    return { ...caller, scopes, expiresAt: token.expiresAt };
  }

  /**
   * For what outlives its request: the caller as credential, memberships and switches are now; undefined once nothing may be
   * told them any more. Those who ask together share a statement.
   */
  async renew({ kind, tokenId, scopes, expiresAt }: Caller): Promise<Caller | undefined> {
    const now =
      kind === 'oauth'
        ? await this.authenticateGrant(tokenId, { scopes, expiresAt: expiresAt ?? new Date(0) })
        : await this.callerOf({ tokenId });
    return now && now.standing !== 'suspended' && now.switches.mcp === undefined
      ? { ...now, kind }
      : undefined;
  }

  /** By hostname. `after` is the id of the last VM of the page before; one that is not the caller's is `vm_not_found`. */
  async listVms(caller: Caller, limit: number, after?: string): Promise<Vm[]> {
    const last = after === undefined ? undefined : await this.resolveVm(caller, after);
    return this.db.vm.findMany({
      where: {
        projectId: { in: caller.projectIds },
        id: { in: caller.vmIds },
        ...(last && {
          OR: [{ hostname: { gt: last.hostname } }, { hostname: last.hostname, id: { gt: last.id } }],
        }),
      },
      orderBy: [{ hostname: 'asc' }, { id: 'asc' }],
      take: limit,
    });
  }

  /**
   * The caller's VM by its id, exact hostname, or unique prefix of either, in this order. A VM of someone else, or one that
   * the token is not for, is `vm_not_found` like one that does not exist; several matches are `vm_ambiguous` and named.
   */
  async resolveVm(caller: Caller, reference: string): Promise<Vm> {
    const id = parseId(reference);
    const vmsWhere = (condition: Prisma.Sql) => this.db.$queryRaw<Vm[]>`
      SELECT ${VM_COLUMNS} FROM vms
      WHERE project_id = ANY(${caller.projectIds}::uuid[])
        ${caller.vmIds ? Prisma.sql`AND id = ANY(${caller.vmIds}::uuid[])` : Prisma.empty}
        AND ${condition} ORDER BY hostname, id LIMIT 100`;
    // By its id it is found in an index, however many VMs there are.
    const [known] = id ? await vmsWhere(Prisma.sql`id = ${id}::uuid`) : [];
    if (known) return known;
    const vms = await vmsWhere(
      Prisma.sql`(starts_with(hostname, ${reference}) OR starts_with(id::text, ${reference.toLowerCase()}))`,
    );
    const named = vms.filter((vm) => vm.hostname === reference);
    const matches = [named, vms].find((found) => found.length > 0) ?? [];
    const [match] = matches;
    if (!match) {
      throw new AppError(
        'vm_not_found',
        'You have no VM of that id, hostname or prefix. list_vms shows yours.',
      );
    }
    if (matches.length > 1) {
      const shown = matches.slice(0, MATCHES_NAMED).map((vm) => ({ id: vm.id, hostname: vm.hostname }));
      throw new AppError(
        'vm_ambiguous',
        'Several of your VMs match; give one of the ids in details.matches.',
        {
          matches: shown,
        },
      );
    }
    return match;
  }
}
