export { Access, type Caller } from './access.js';
export { AccessModule } from './access.module.js';
export { SCOPES, type Scope } from './scopes.js';
export { createToken, type IssuedToken } from './tokens.js';
