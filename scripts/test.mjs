// npm test [-- <jest arguments>]: sets up what the tests need, then runs them all: unit, integration, end to end.
// The last line sums them up; the exit code is 0 only if all passed.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SetupError, build, checkNode, installNpmPackages, installSystemPackages, run } from './setup.mjs';

// End-to-end tests run VMs, of which a small machine bears one or two.
const phases = [
  { name: 'unit', pattern: '**/*.spec.ts', workers: '50%' },
  { name: 'integration', pattern: '**/*.int-spec.ts', workers: '2' },
  { name: 'end to end', pattern: '**/*.e2e-spec.ts', workers: '1' },
];
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
for (const { name, pattern, workers } of phases) {
  console.log(`\n${name} tests`);
  const file = join(results, 'result.json');
  rmSync(file, { force: true });
  const { status } = spawnSync(
    process.execPath,
    [
      ...['--experimental-vm-modules', '--no-warnings', 'node_modules/jest/bin/jest.js'],
      ...['--testMatch', pattern, '--maxWorkers', workers, '--json', '--outputFile', file],
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
