import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, existsSync, mkdirSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { finished } from 'node:stream/promises';
import { CACHE, type Suite } from './install.js';

interface Check {
  id: string;
  status: 'SUCCESS' | 'FAILURE' | 'WARNING' | 'SKIPPED' | 'INFO';
  description: string;
  errorMessage?: string;
}

export interface Scenario {
  name: string;
  /** None when the suite failed before it could check. */
  checks: Check[];
}

/** What a run needs: the suite, what it is to look at, and what ends it early. */
export interface Target extends Suite {
  url: string;
  interrupt: AbortSignal;
}

/** Longer than any run takes. */
const RUN_MS = 600_000;
const RESULT = /^server-(.+)-\d{4}-\d{2}-\d{2}T[\d-]+Z$/;

/**
 * Runs the suite with `args` against `url` and answers what it wrote about each scenario. Its files and output stay in the
 * folder `name` of the results until the next run of that name. Throws when interrupted.
 */
export async function runSuite(target: Target, name: string, args: string[]): Promise<Scenario[]> {
  const { node, main, url, interrupt } = target;
  const folder = join(CACHE, 'results', name);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const output = createWriteStream(join(folder, 'output.log'));
  const child = spawn(node, [main, 'server', '--url', url, '-o', folder, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: RUN_MS,
    signal: interrupt,
  });
  child.stdout.pipe(output, { end: false });
  child.stderr.pipe(output, { end: false });
  await once(child, 'close');
  await finished(output.end());
  return readdirSync(folder).flatMap((entry) => {
    const [, scenario] = RESULT.exec(entry) ?? [];
    if (scenario === undefined) return [];
    const file = join(folder, entry, 'checks.json');
    const checks = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Check[]) : [];
    return [{ name: scenario, checks }];
  });
}

const has = ({ checks }: Scenario, status: Check['status']) =>
  checks.some((check) => check.status === status);

export const isFailed = (scenario: Scenario) => scenario.checks.length === 0 || has(scenario, 'FAILURE');

/** Whether the suite has nothing to say about it. */
export const isSkipped = ({ checks }: Scenario) =>
  checks.length > 0 && checks.every(({ status }) => status === 'SKIPPED');

/** Prints what a scenario found wrong, warnings too: those are what the protocol only advises. */
export function report(scenario: Scenario): void {
  if (scenario.checks.length === 0) console.log(`  FAILURE ${scenario.name}: no checks; see output.log`);
  for (const { id, status, description, errorMessage } of scenario.checks) {
    if (status !== 'FAILURE' && status !== 'WARNING') continue;
    console.log(`  ${status} ${scenario.name} ${id}: ${errorMessage ?? description}`);
  }
}

export const countChecks = (scenarios: Scenario[], ...statuses: Check['status'][]) =>
  scenarios.flatMap(({ checks }) => checks).filter(({ status }) => statuses.includes(status)).length;
