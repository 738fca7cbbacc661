export { Access } from './access.js';
export { AccessModule } from './access.module.js';
export { actorOf, type Caller, type SwitchName } from './caller.js';
export { PASSWORD_LENGTH, hashPassword, verifyPassword } from './passwords.js';
export { mayChange, projectFor, requireChange, requireExecSwitch, requireOpen } from './policy.js';
export { Rates, ratesConfig } from './rates.js';
export { RatesModule } from './rates.module.js';
export { SCOPES, type Scope } from './scopes.js';
export { TOKEN_PATTERN, createToken, type IssuedToken, type TokenOptions } from './tokens.js';
