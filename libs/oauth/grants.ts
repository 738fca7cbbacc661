import { randomBytes } from 'node:crypto';
import type { Scope } from '@longhaul/access';
import { newId, type Database, type Transaction } from '@longhaul/persistence';
import { hashId } from './ids.js';

/** What a person lets a client do. Empty lists of projects and VMs restrict nothing. */
export interface GrantOptions {
  userId: string;
  clientId: string;
  clientName?: string;
  scopes: readonly Scope[];
  projectIds?: readonly string[];
  vmIds?: readonly string[];
}

export interface MachineClient {
  clientId: string;
  /** Shown once; only its hash is kept. */
  clientSecret: string;
}

/** Longer than a grant can live, so that a client that is in use is never forgotten. */
const CLIENT_DAYS = 60;
/** How long grants that are over stay in lists. */
const OVER_DAYS = 90;
const BATCH = 1000;

/** The row that says what was granted, to be made before anything that hangs on it. */
export async function saveGrant(tx: Transaction, id: string, options: GrantOptions): Promise<void> {
  const { scopes, projectIds = [], vmIds = [], ...names } = options;
  await tx.oauthGrant.create({
    data: { id, ...names, scopes: [...scopes], projectIds: [...projectIds], vmIds: [...vmIds] },
  });
  await tx.$executeRaw`
    UPDATE oauth_state SET expires_at = now() + ${CLIENT_DAYS} * interval '1 day'
    WHERE model = 'Client' AND id = ${options.clientId} AND expires_at IS NOT NULL`;
}

/** In force for the very next request with any token of the grant. False when there is no such grant, or it was over. */
export async function revokeGrant(tx: Transaction, id: string): Promise<boolean> {
  const { count } = await tx.oauthGrant.updateMany({
    where: { id, revokedAt: null },
    data: { revokedAt: new Date() },
  });
  return count > 0;
}

/**
 * Ends all that came of the user's logins: who is logged in at a browser, has just done so or is being asked for consent, and
 * every grant of a consent. Clients of machines stay. Answers how many grants there were.
 */
export async function endLogins(tx: Transaction, userId: string): Promise<number> {
  await tx.$executeRaw`
    DELETE FROM oauth_state WHERE (model = 'Session' AND payload->>'accountId' = ${userId})
      OR (model = 'Interaction' AND ${userId} IN (payload->'session'->>'accountId', payload->'result'->'login'->>'accountId'))`;
  const { count } = await tx.oauthGrant.updateMany({
    where: { userId, revokedAt: null, NOT: ofMachines(tx) },
    data: { revokedAt: new Date() },
  });
  return count;
}

/**
 * A client for a machine: it gets its tokens by client_credentials and acts in the user's name, within the scopes and projects
 * given. It ends with `revokeGrant(tx, clientId)`.
 */
export async function createMachineClient(
  tx: Transaction,
  name: string,
  options: Omit<GrantOptions, 'clientId' | 'clientName'>,
): Promise<MachineClient> {
  const clientId = newId();
  const clientSecret = randomBytes(32).toString('base64url');
  await saveGrant(tx, clientId, { ...options, clientId, clientName: name });
  const payload = {
    client_id: clientId,
    client_secret: hashId(clientSecret),
    client_name: name,
    grant_types: ['client_credentials'],
    response_types: [],
    redirect_uris: [],
    token_endpoint_auth_method: 'client_secret_basic',
  };
  await tx.oauthState.create({ data: { model: 'Client', id: clientId, grantId: clientId, payload } });
  return { clientId, clientSecret };
}

/** Which grants are of machines; every other one is of a consent. */
export const ofMachines = (db: Transaction) => ({ clientId: { equals: db.oauthGrant.fields.id } });

/** Deletes what has expired, and the grants that have been over for long. Any number of processes may run it at once. */
export async function sweepOauth(db: Database, stop?: AbortSignal): Promise<void> {
  let deleted = BATCH;
  while (deleted === BATCH && !stop?.aborted) {
    deleted = await db.$executeRaw`
      DELETE FROM oauth_state WHERE (model, id) IN (
        SELECT model, id FROM oauth_state WHERE expires_at < now() LIMIT ${BATCH} FOR UPDATE SKIP LOCKED)`;
  }
  await db.$executeRaw`
    UPDATE oauth_grants SET revoked_at = now()
    WHERE revoked_at IS NULL AND created_at < now() - interval '1 day'
      AND NOT EXISTS (SELECT FROM oauth_state WHERE grant_id = oauth_grants.id)`;
  await db.$executeRaw`
    DELETE FROM oauth_state USING oauth_grants AS g WHERE grant_id = g.id AND g.revoked_at IS NOT NULL`;
  await db.$executeRaw`DELETE FROM oauth_grants WHERE revoked_at < now() - ${OVER_DAYS} * interval '1 day'`;
}
