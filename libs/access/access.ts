import { Injectable } from '@nestjs/common';
import { AppError } from '@longhaul/errors';
import { Database, Prisma, batched, camelKeys, parseId, type Vm } from '@longhaul/persistence';
import type { Scope } from './scopes.js';
import { hashToken } from './tokens.js';

/** Who calls, and what the token and the user's memberships let them see. */
export interface Caller {
  userId: string;
  email: string;
  tokenId: string;
  scopes: Scope[];
  projectIds: string[];
}

/** Longest list of matches that an ambiguous reference names. */
const MATCHES_NAMED = 10;
/** Tokens that one statement looks up, when many requests come together. */
const AUTHENTICATED_AT_ONCE = 100;

@Injectable()
export class Access {
  private readonly callerOf = batched((hashes: Buffer[]) => this.callersOf(hashes), AUTHENTICATED_AT_ONCE);
  private readonly callerNow = batched((ids: string[]) => this.callersNow(ids), AUTHENTICATED_AT_ONCE);

  constructor(private readonly db: Database) {}

  /** The caller behind a bearer token, asked of the database every time so that a revocation holds at once. */
  authenticate(token: string): Promise<Caller | undefined> {
    return this.callerOf(hashToken(token));
  }

  /**
   * For what outlives its request: the caller as the token and the memberships are now, undefined once the token holds no
   * more. Those who ask together share a statement.
   */
  renew({ tokenId }: Caller): Promise<Caller | undefined> {
    return this.callerNow(tokenId);
  }

  /** By hostname. `after` is the id of the last VM of the page before; one that is not the caller's is `vm_not_found`. */
  async listVms(caller: Caller, limit: number, after?: string): Promise<Vm[]> {
    const last = after === undefined ? undefined : await this.resolveVm(caller, after);
    return this.db.vm.findMany({
      where: {
        projectId: { in: caller.projectIds },
        ...(last && {
          OR: [{ hostname: { gt: last.hostname } }, { hostname: last.hostname, id: { gt: last.id } }],
        }),
      },
      orderBy: [{ hostname: 'asc' }, { id: 'asc' }],
      take: limit,
    });
  }

  /**
   * The caller's VM by its id, exact hostname, or unique prefix of either, in this order. A VM of someone else is
   * `vm_not_found` like one that does not exist; several matches are `vm_ambiguous` and named.
   */
  async resolveVm(caller: Caller, reference: string): Promise<Vm> {
    const id = parseId(reference);
    const rows = await this.db.$queryRaw<object[]>`
      SELECT * FROM vms
      WHERE project_id = ANY(${caller.projectIds}::uuid[])
        AND (${id ? Prisma.sql`id = ${id}::uuid OR` : Prisma.empty}
          starts_with(hostname, ${reference}) OR starts_with(id::text, ${reference.toLowerCase()}))
      ORDER BY hostname, id LIMIT 100`;
    const vms = rows.map((row) => camelKeys<Vm>(row));
    const exact = vms.filter((vm) => vm.id === id);
    const named = vms.filter((vm) => vm.hostname === reference);
    const matches = [exact, named, vms].find((found) => found.length > 0) ?? [];
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

  private async callersOf(hashes: Buffer[]): Promise<(Caller | undefined)[]> {
    const rows = await this.callers(Prisma.sql`t.hash = ANY(${hashes}::bytea[])`);
    const callers = new Map(rows.map(({ hash, ...caller }) => [hash.toString('hex'), caller]));
    return hashes.map((hash) => callers.get(hash.toString('hex')));
  }

  private async callersNow(tokenIds: string[]): Promise<(Caller | undefined)[]> {
    const rows = await this.callers(Prisma.sql`t.id = ANY(${tokenIds}::uuid[])`);
    const callers = new Map(rows.map(({ hash: _hash, ...caller }) => [caller.tokenId, caller]));
    return tokenIds.map((id) => callers.get(id));
  }

  private callers(tokens: Prisma.Sql): Promise<(Caller & { hash: Buffer })[]> {
    return this.db.rows(Prisma.sql`
      SELECT t.hash, t.user_id AS "userId", u.email, t.id AS "tokenId", t.scopes,
        ARRAY(SELECT project_id::text FROM project_members WHERE user_id = t.user_id) AS "projectIds"
      FROM tokens t JOIN users u ON u.id = t.user_id
      WHERE ${tokens} AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > now())`);
  }
}
