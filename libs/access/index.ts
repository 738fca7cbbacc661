export { Access } from './access.js';
export { AccessModule } from './access.module.js';
export { actorOf, type Caller, type SwitchName } from './caller.js';
export { lockMembers, setMember, userOfAddress } from './members.js';
export { PASSWORD_LENGTH, hashPassword, verifyPassword } from './passwords.js';
export { mayChange, projectFor, requireChange, requireExecSwitch, requireOpen } from './policy.js';
export {
  projectLimits,
  resourcesOf,
  unfinishedJobs,
  usedOf,
  type ProjectLimits,
  type Resources,
} from './quotas.js';
export { Rates, ratesConfig, type Counter } from './rates.js';
export { RatesModule } from './rates.module.js';
export { SCOPES, type Scope } from './scopes.js';
export { REASON_MAX, SWITCHES, listSwitches, setSwitch } from './switches.js';
export { TOKEN_PATTERN, createToken, type IssuedToken, type TokenOptions } from './tokens.js';
