import type { Access, Caller } from '@longhaul/access';

/** Checks an access token of OAuth: what it says, or undefined when it does not hold. */
export type VerifyGrant = (
  token: string,
) => Promise<{ grantId: string; scopes: readonly string[]; expiresAt: Date } | undefined>;

/** No longer than what a proxy lets through as one header. */
const BEARER = /^Bearer +([\w.~+/=-]{1,4096}) *$/i;
const BASIC = /^Basic +([A-Za-z0-9+/]{1,1024}={0,2}) *$/i;

/**
 * Who an Authorization header speaks for: a developer token as Bearer, or as the password of its user's e-mail address in
 * Basic; any other Bearer token is one of OAuth.
 */
export async function callerOf(
  authorization: string | undefined,
  access: Access,
  verifyGrant?: VerifyGrant,
): Promise<Caller | undefined> {
  const [, basic] = BASIC.exec(authorization ?? '') ?? [];
  if (basic !== undefined) {
    // A token has no colon, an e-mail address might.
    const [, email = '', token = ''] = /^(.*):([^:]*)$/s.exec(Buffer.from(basic, 'base64').toString()) ?? [];
    return access.authenticateBasic(email, token);
  }
  const [, bearer] = BEARER.exec(authorization ?? '') ?? [];
  if (bearer === undefined) return undefined;
  if (bearer.startsWith('lh_')) return access.authenticate(bearer);
  const verified = await verifyGrant?.(bearer);
  return verified && access.authenticateGrant(verified.grantId, verified);
}
