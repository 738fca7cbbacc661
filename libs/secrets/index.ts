export { secretsConfig, type SecretsConfig } from './config.js';
export { addKey, ensureKeyFile } from './keyring.js';
export { Secrets } from './secrets.js';
export { SecretsModule } from './secrets.module.js';
export { StoredSecrets } from './stored.js';
