export { Access } from './access.js';
export { AccessModule } from './access.module.js';
export { actorOf, type Caller, type SwitchName } from './caller.js';
export { projectFor, requireChange, requireExecSwitch, requireOpen } from './policy.js';
export { SCOPES, type Scope } from './scopes.js';
export { TOKEN_PATTERN, createToken, type IssuedToken, type TokenOptions } from './tokens.js';
