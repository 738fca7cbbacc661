import type { OauthGrant, Token } from '@longhaul/persistence';
import { z } from 'zod';
import { shown, time } from './fields.js';

const credential = {
  id: z.string(),
  user_id: z.string(),
  scopes: z.array(z.string()),
  project_ids: z.array(z.string()).describe('Empty: all of the user'),
  vm_ids: z.array(z.string()).describe('Empty: all of the projects'),
  created_at: time,
  last_used_at: time.nullable().describe('To the hour'),
  revoked_at: time.nullable(),
};

/** How answers show a token; the token itself is not stored. */
export const tokenFields = z.object({
  ...credential,
  hint: z.string().describe('Its first characters'),
  name: z.string().nullable(),
  expires_at: time.nullable(),
});

/** How answers show what an OAuth client has been given. */
export const grantFields = z.object({
  ...credential,
  client_id: z.string(),
  client_name: z.string().nullable(),
});

export const showToken = ({ hash: _hash, ...token }: Token): z.input<typeof tokenFields> => shown(token);
export const showGrant = (grant: OauthGrant): z.input<typeof grantFields> => shown(grant);

/** Ids of grants are those of the authorization server. */
export const grantInPath = z.strictObject({ id: z.string().regex(/^[\w-]{1,64}$/) });
