import base from './jest.config.js';

/** For tests that need PostgreSQL and Redis, which are started once for all of them. */
export default {
  ...base,
  globalSetup: '<rootDir>/test/support/servers.mjs',
  globalTeardown: '<rootDir>/test/support/stop-servers.mjs',
  testTimeout: 300_000,
};
