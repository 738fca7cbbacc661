import { envInteger, envList, envOrigin, envSwitch } from '@longhaul/config';
import { z } from 'zod';

export const oauthConfig = z.object({
  PUBLIC_URL: envOrigin
    .optional()
    .meta({ default: 'http://127.0.0.1 and the port' })
    .describe('Origin under which clients reach the API; names the OAuth issuer and the MCP resource'),
  OAUTH_PRIVATE_CLIENTS: envSwitch
    .default(false)
    .describe('Whether metadata documents of OAuth clients may be fetched from private addresses'),
  OAUTH_REGISTRATIONS: envInteger(0, 100_000)
    .default(60)
    .describe('OAuth clients that may register themselves in an hour from one address; 0: none may'),
  OIDC_ISSUER: z
    .url({ protocol: /^https?$/ })
    .optional()
    .describe('OpenID Connect provider at which people log in instead of with a password'),
  OIDC_CLIENT_ID: z.string().default('longhaul').describe('How Longhaul is known there'),
  OIDC_CLIENT_SECRET: z.string().optional().describe('Its secret; without one it is a public client there'),
  OIDC_SCOPES: envList
    .default(['openid', 'email'])
    .describe('What is asked of that provider; the address is needed to make users'),
  OIDC_CREATE_USERS: envSwitch
    .default(true)
    .describe('Whether whoever logs in there for the first time gets a user and a project'),
});

export type OauthConfig = z.output<typeof oauthConfig>;
