// npm test [-- <jest arguments>]: sets up what the tests need, then runs them all: unit, integration, end to end.
// The last line sums them up; the exit code is 0 only if all passed.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { SetupError, build, checkNode, installNpmPackages, installSystemPackages, run } from './setup.mjs';

const servers = ['--config', 'jest.servers.config.js'];
// End-to-end tests run VMs, of which a small machine bears one or two.
const phases = [
  { name: 'Unit', pattern: '**/*.spec.ts', options: ['--maxWorkers', '100%'] },
  { name: 'Integration', pattern: '**/*.int-spec.ts', options: ['--maxWorkers', '2', ...servers] },
  { name: 'End-to-end', pattern: '**/*.e2e-spec.ts', options: ['--maxWorkers', '1', ...servers] },
];
const home = process.env.LONGHAUL_HOME || (process.getuid() === 0 ? '/var/lib/longhaul' : '.longhaul');
process.env.TEST_IMAGES = process.env.LONGHAUL_IMAGES || join(resolve(home), 'images');
const only = process.argv.slice(2).filter((argument) => !argument.startsWith('-'));

try {
  checkNode();
  await installNpmPackages();
  await installSystemPackages({ forTests: true });
  await build();
  await run('Guest image', process.execPath, ['dist/apps/cli/main.js', 'image']);
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  console.error(error.message);
  process.exit(1);
}

const results = mkdtempSync(join(tmpdir(), 'longhaul-test-'));
let passed = 0;
let failed = 0;
for (const { name, pattern, options } of phases) {
  console.log(`\n${name} tests`);
  const file = join(results, 'result.json');
  rmSync(file, { force: true });
  const { status } = spawnSync(
    process.execPath,
    [
      ...['--experimental-vm-modules', '--no-warnings', 'node_modules/jest/bin/jest.js'],
      ...['--testMatch', pattern, '--json', '--outputFile', file, ...options],
      ...(only.length > 0 ? ['--passWithNoTests'] : []),
      ...process.argv.slice(2),
    ],
    { stdio: ['ignore', 'ignore', 'inherit'] },
  );
  const result = readResult(file);
  passed += result.numPassedTests;
  // A suite that cannot even be loaded counts as one failed test, and so does a run that ends badly without any.
  const failures = result.numFailedTests + result.numRuntimeErrorTestSuites;
  failed += failures === 0 && status !== 0 ? 1 : failures;
}
rmSync(results, { recursive: true, force: true });
console.log(`\n${passed} passed, ${failed} failed`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);

function readResult(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    return { numPassedTests: 0, numFailedTests: 0, numRuntimeErrorTestSuites: 0 };
  }
}
