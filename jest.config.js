export default {
  testEnvironment: 'node',
  extensionsToTreatAsEsm: ['.ts'],
  transform: { '^.+\\.ts$': ['@swc/jest'] },
  moduleNameMapper: {
    '^@longhaul/(.*)$': ['<rootDir>/libs/$1/index.ts', '<rootDir>/libs/$1.ts'],
    '^(\\.{1,2}/.*)\\.js$': '$1',
  },
};
