import boundaries from 'eslint-plugin-boundaries';
import tseslint from 'typescript-eslint';

// Imports go downward only. Each library names those below it that it may use; apps may use any.
const BELOW = {
  errors: [],
  config: ['errors'],
  telemetry: ['errors', 'config'],
  persistence: ['errors', 'config', 'telemetry'],
  audit: ['errors', 'config', 'telemetry', 'persistence'],
  access: ['errors', 'config', 'telemetry', 'persistence', 'audit'],
  secrets: ['errors', 'config', 'persistence'],
  oauth: ['errors', 'config', 'telemetry', 'persistence', 'access', 'secrets'],
  artifacts: ['errors', 'config', 'telemetry', 'persistence', 'audit', 'access', 'secrets'],
  jobs: ['errors', 'config', 'telemetry', 'persistence', 'audit', 'access'],
  'job-log': ['errors', 'config', 'telemetry', 'persistence', 'jobs', 'artifacts'],
  'job-queue': ['errors', 'config', 'telemetry', 'persistence', 'jobs'],
  // What reaches machines sees neither database, queue nor MCP.
  guest: ['errors', 'telemetry'],
  images: ['errors'],
  'vm-providers': ['errors', 'config', 'guest', 'images'],
  mcp: [
    'errors',
    'config',
    'telemetry',
    'persistence',
    'audit',
    'access',
    'secrets',
    'artifacts',
    'images',
    'jobs',
    'job-log',
  ],
};
const ALL = [...Object.keys(BELOW), 'toolsets'];

const ELEMENTS = [
  ...ALL.map((name) => ({ type: name, pattern: `libs/${name}` })),
  { type: 'app', pattern: 'apps/*' },
];

const policies = [
  ...Object.entries(BELOW).map(([name, below]) => allow(name, [name, ...below])),
  allow('toolsets', ALL),
  allow('app', [...ALL, 'app']),
];

const MACHINES = ['@longhaul/guest', '@longhaul/vm-providers'];
const QUEUE = ['bullmq', '@nestjs/bullmq'];
const MCP = ['@longhaul/mcp', '@modelcontextprotocol/*'];
const HANDLERS = [
  '*.handler.js',
  '**/*.handler.js',
  '**/handler.js',
  '**/handlers.js',
  '@longhaul/toolsets/handler*',
];

function allow(from, to) {
  return { from: { element: { type: from } }, allow: { to: { element: { types: { anyOf: to } } } } };
}

function refuse(files, patterns) {
  return { files, rules: { 'no-restricted-imports': ['error', { patterns }] } };
}

const SPECS = [
  '**/*.spec.ts',
  '**/*.int-spec.ts',
  '**/*.e2e-spec.ts',
  '**/*.hand-spec.ts',
  '**/*.contract.ts',
];

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
  // The API and what it loads (tools, kinds of jobs) never touch a machine; only job-queue knows BullMQ.
  refuse(
    ['apps/api/**/*.ts', 'libs/**/*.{tool,job}.ts', 'libs/toolsets/catalog.ts'],
    [...MACHINES, ...HANDLERS, ...QUEUE],
  ),
  refuse(['apps/cli/**/*.ts', 'libs/{mcp,audit,access,telemetry,config,persistence}/**/*.ts'], QUEUE),
  // What runs jobs and what reaches machines know nothing of MCP.
  refuse(
    ['libs/**/*.handler.ts', 'libs/{guest,vm-providers,jobs,job-log}/**/*.ts', 'apps/worker/**/*.ts'],
    [...MCP, ...QUEUE],
  ),
  // Specs may use test/support and the layers above them.
  { files: SPECS, rules: { 'boundaries/dependencies': 'off', 'no-restricted-imports': 'off' } },
);
