export { oauthConfig, type OauthConfig } from './config.js';
export {
  createMachineClient,
  endLogins,
  ofMachines,
  revokeGrant,
  saveGrant,
  sweepOauth,
  type GrantOptions,
  type MachineClient,
} from './grants.js';
export { rotateSigningKeys } from './keys.js';
export { Oauth, type VerifiedToken } from './oauth.js';
export { OauthModule } from './oauth.module.js';
export { SCOPE_MEANINGS } from './scopes.js';
export { userOfIdentity } from './users.js';
export { type UpstreamRequest } from './upstream.js';
export { giveConsent, readConsent, type Choice, type Consent, type Interaction } from './consent.js';
