import {
  Prisma,
  batched,
  parseId,
  type AccountStanding,
  type Database,
  type ProjectRole,
} from '@longhaul/persistence';
import { createLogger } from '@longhaul/telemetry';
import type { Scope } from './scopes.js';

/** Who calls, by what credential, and what that and the user's memberships let them see. */
export interface Caller {
  /** `basic`: a developer token as the password of HTTP Basic. */
  kind: 'token' | 'basic' | 'oauth';
  userId: string;
  email: string;
  /** What dies with a revocation: the developer token, or the grant of OAuth. */
  tokenId: string;
  /** Of OAuth. */
  clientId?: string;
  /** Of OAuth: when the access token ends. */
  expiresAt?: Date;
  scopes: Scope[];
  /** The user's projects, as far as the credential is not restricted to some. */
  projectIds: string[];
  /** The user's role in each of `projectIds`. */
  roles: Readonly<Record<string, ProjectRole>>;
  /** Other VMs, and jobs on no VM, do not exist for this credential; undefined: no such restriction. */
  vmIds?: string[];
  staff: boolean;
  standing: AccountStanding;
  /** Kill switches that are engaged now, with their reasons. */
  switches: Readonly<Partial<Record<SwitchName, string>>>;
  /** When all this was so, by the database's clock. */
  seenAt: Date;
}

export type SwitchName = 'mcp' | 'exec';

/** What names a credential: the hash of a developer token or its id, or the id of a grant. */
export type CredentialKey = { hash: Buffer } | { tokenId: string } | { grantId: string };

interface Row extends Omit<Caller, 'projectIds' | 'vmIds' | 'clientId'> {
  kind: 'token' | 'oauth';
  hash: Buffer | null;
  clientId: string | null;
  vmIds: string[];
  isStale: boolean;
}

/** Credentials that one statement looks up, when many requests come together. */
const AT_ONCE = 100;
/** A developer token that nobody uses for this long is dead. */
export const UNUSED_DAYS = 90;

const log = createLogger('access');

/**
 * Looks callers up, all there is to know of one in one statement, which requests of the same time share: so what has been
 * revoked, restricted or switched off by then holds.
 */
export function callerLookup(db: Database): (key: CredentialKey) => Promise<Caller | undefined> {
  return batched(async (keys: CredentialKey[]) => {
    const rows = await db.rows<Row>(lookup(keys));
    noteUse(db, rows);
    const callers = new Map<string, Caller>();
    for (const row of rows) {
      const caller = toCaller(row);
      callers.set(nameOf(row.kind === 'token' ? { tokenId: row.tokenId } : { grantId: row.tokenId }), caller);
      if (row.hash) callers.set(nameOf({ hash: row.hash }), caller);
    }
    return keys.map((key) => callers.get(nameOf(key)));
  }, AT_ONCE);
}

function lookup(keys: CredentialKey[]): Prisma.Sql {
  const hashes = keys.flatMap((key) => ('hash' in key ? [key.hash] : []));
  const tokenIds = keys.flatMap((key) => ('tokenId' in key ? [key.tokenId] : []));
  const grantIds = keys.flatMap((key) => ('grantId' in key ? [key.grantId] : []));
  return Prisma.sql`
    SELECT c.kind, c.hash, c.user_id AS "userId", u.email, c.id AS "tokenId", c.client_id AS "clientId", c.scopes,
      c.vm_ids AS "vmIds", u.staff, u.standing,
      (SELECT coalesce(jsonb_object_agg(project_id, role), '{}') FROM project_members
        WHERE user_id = u.id AND (c.project_ids = '{}' OR project_id = ANY(c.project_ids))) AS roles,
      (SELECT coalesce(jsonb_object_agg(name, coalesce(reason, '')), '{}') FROM kill_switches WHERE engaged) AS switches,
      coalesce(c.last_used_at < now() - interval '1 hour', true) AS "isStale", now() AS "seenAt"
    FROM (
      SELECT 'token' AS kind, id::text, hash, user_id, NULL AS client_id, scopes, project_ids, vm_ids::text[], last_used_at
      FROM tokens
      WHERE (hash = ANY(${hashes}::bytea[]) OR id = ANY(${tokenIds}::uuid[]))
        AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
        AND coalesce(last_used_at, created_at) > now() - ${UNUSED_DAYS} * interval '1 day'
      UNION ALL
      SELECT 'oauth', id, NULL, user_id, client_id, scopes, project_ids, vm_ids::text[], last_used_at
      FROM oauth_grants WHERE id = ANY(${grantIds}::text[]) AND revoked_at IS NULL
    ) AS c JOIN users AS u ON u.id = c.user_id`;
}

function toCaller({ hash: _hash, isStale: _isStale, clientId, vmIds, ...row }: Row): Caller {
  return {
    ...row,
    projectIds: Object.keys(row.roles),
    ...(clientId !== null && { clientId }),
    ...(vmIds.length > 0 && { vmIds }),
  };
}

const nameOf = (key: CredentialKey) =>
  'hash' in key
    ? key.hash.toString('hex')
    : 'tokenId' in key
      ? `token ${key.tokenId}`
      : `grant ${key.grantId}`;

/** At most once an hour for each, and beside the requests: nobody waits for it. */
function noteUse(db: Database, rows: Row[]): void {
  const stale = rows.filter(({ isStale }) => isStale);
  if (stale.length === 0) return;
  const idsOf = (kind: Row['kind']) => stale.filter((row) => row.kind === kind).map(({ tokenId }) => tokenId);
  const update = Prisma.sql`
    WITH grants AS (
      UPDATE oauth_grants SET last_used_at = now() WHERE id = ANY(${idsOf('oauth')}::text[]))
    UPDATE tokens SET last_used_at = now()
    WHERE id = ANY(${idsOf('token')}::uuid[]) AND coalesce(last_used_at < now() - interval '1 hour', true)`;
  db.rows(update).catch((error: unknown) =>
    log.warn({ err: error }, 'the use of a token could not be noted'),
  );
}

/**
 * In whose name something is stored. With OAuth the grant stands for the token, so that all that came of one consent is found by
 * it; should the authorization server have made its id, that is no UUID and is left out.
 */
export function actorOf({ kind, userId, tokenId, clientId }: Caller) {
  return {
    userId,
    ...((kind !== 'oauth' || parseId(tokenId)) && { tokenId }),
    ...(clientId !== undefined && { clientId }),
  };
}
