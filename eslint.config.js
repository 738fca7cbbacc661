import boundaries from 'eslint-plugin-boundaries';
import tseslint from 'typescript-eslint';

// Imports go downward only. Each library names those below it that it may use; apps may use any.
const BELOW = {
  errors: [],
  config: ['errors'],
  telemetry: ['errors', 'config'],
  persistence: ['errors', 'config', 'telemetry'],
  audit: ['errors', 'config', 'telemetry', 'persistence'],
  access: ['errors', 'config', 'telemetry', 'persistence'],
  jobs: ['errors', 'config', 'telemetry', 'persistence', 'audit', 'access'],
  'job-log': ['errors', 'config', 'telemetry', 'persistence', 'jobs'],
  'job-queue': ['errors', 'config', 'telemetry', 'persistence', 'jobs'],
  // What reaches machines sees neither database, queue nor MCP.
  guest: ['errors'],
  'vm-providers': ['errors', 'guest'],
  mcp: ['errors', 'config', 'telemetry', 'persistence', 'audit', 'access', 'jobs', 'job-log'],
};
const ALL = [...Object.keys(BELOW), 'tool', 'job', 'handler', 'toolset'];
const ABOVE_MACHINES = ['errors', 'config', 'telemetry', 'persistence', 'audit', 'access', 'jobs', 'job-log'];

const ELEMENTS = [
  { type: 'tool', pattern: 'libs/toolsets/**/*.tool.ts', partialMatch: false },
  { type: 'job', pattern: 'libs/toolsets/**/*.job.ts', partialMatch: false },
  { type: 'toolset', pattern: 'libs/toolsets' },
  ...Object.keys(BELOW).map((name) => ({ type: name, pattern: `libs/${name}` })),
  { type: 'app', pattern: 'apps/*' },
];

const policies = [
  ...Object.entries(BELOW).map(([name, below]) => allow(name, [name, ...below])),
  // A tool declares and submits, a job kind only declares: neither touches a machine. A handler does, and no MCP.
  allow('tool', [...ABOVE_MACHINES, 'mcp', 'job', 'tool', 'toolset']),
  allow('job', ['jobs', 'access']),
  allow('toolset', [...ALL, 'vm-providers', 'guest']),
  allow('app', [...ALL, 'app']),
];

function allow(from, to) {
  return { from: { element: { type: from } }, allow: { to: { element: { types: { anyOf: to } } } } };
}

const SPECS = ['**/*.spec.ts', '**/*.int-spec.ts', '**/*.e2e-spec.ts', '**/*.contract.ts'];

export default tseslint.config(
  { ignores: ['dist/', 'node_modules/', 'libs/persistence/generated/', '.longhaul/', 'coverage/'] },
  ...tseslint.configs.recommended,
  {
    files: ['apps/**/*.ts', 'libs/**/*.ts', 'test/**/*.ts'],
    languageOptions: { parserOptions: { projectService: true } },
    rules: {
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-misused-promises': ['error', { checksVoidReturn: { arguments: false } }],
      '@typescript-eslint/consistent-type-imports': [
        'error',
        { fixStyle: 'inline-type-imports', disallowTypeAnnotations: false },
      ],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_' }],
    },
  },
  {
    files: ['apps/**/*.ts', 'libs/**/*.ts'],
    plugins: { boundaries },
    settings: {
      'boundaries/elements': ELEMENTS,
      'import/resolver': { typescript: { project: './tsconfig.json' } },
    },
    rules: { 'boundaries/dependencies': ['error', { default: 'disallow', policies }] },
  },
  {
    // No handler and nothing below it knows MCP; only job-queue knows BullMQ.
    files: ['libs/**/*.handler.ts', 'libs/{guest,vm-providers,jobs,job-log}/**/*.ts'],
    rules: {
      'no-restricted-imports': [
        'error',
        { patterns: ['@longhaul/mcp', '@modelcontextprotocol/*', 'bullmq', '@nestjs/bullmq'] },
      ],
    },
  },
  {
    files: ['apps/**/*.ts', 'libs/{mcp,toolsets,audit,access}/**/*.ts'],
    ignores: ['libs/**/*.handler.ts'],
    rules: { 'no-restricted-imports': ['error', { patterns: ['bullmq', '@nestjs/bullmq'] }] },
  },
  // Specs may use test/support and the layers above them.
  { files: SPECS, rules: { 'boundaries/dependencies': 'off', 'no-restricted-imports': 'off' } },
);
