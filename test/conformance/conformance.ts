import { installSuite } from './install.js';
import { countChecks, isFailed, isSkipped, report, runSuite, type Scenario, type Target } from './suite.js';
import { startTestBuild, type Shape } from './test-build.js';

type Part = 'requirements_2026_07_28' | 'requirements_2025_11_25' | 'tasks';
type Tally = Record<'scenarios' | 'passed' | 'checks_failed', number> &
  Partial<Record<'skipped' | 'checks', number>>;

export type Tallies = Partial<Record<Part, Tally>>;

/** Of this version of the suite: fewer must not pass for all. */
const SCENARIOS: Record<Part, number> = {
  requirements_2026_07_28: 50,
  requirements_2025_11_25: 33,
  tasks: 10,
};

/** By name, as a requirement set runs them without counting them. */
const TASKS = [
  'tasks-lifecycle',
  'tasks-capability-negotiation',
  'tasks-wire-fields',
  'tasks-request-state-removal',
  'tasks-mrtr-input',
  'tasks-request-headers',
  'tasks-dispatch-and-envelope',
  'tasks-status-notifications',
  'tasks-required-task-error',
  'tasks-mrtr-composition',
];

/** What needs requests of the server to the client, which on 2025-11-25 only a session can carry. */
const NEED_SESSIONS = [
  'tools-call-sampling',
  'tools-call-elicitation',
  'elicitation-sep1034-defaults',
  'elicitation-sep1330-enums',
];

export const PARTS = Object.keys(SCENARIOS) as Part[];

/** Runs `parts` of the suite against Longhaul in this shape. `ok` is whether all is as it should be. Throws when interrupted. */
export async function conform(
  shape: Shape,
  parts: readonly Part[],
  interrupt: AbortSignal,
): Promise<{ ok: boolean; tallies: Tallies }> {
  const suite = await installSuite();
  const build = await startTestBuild(shape);
  const tallies: Tallies = {};
  let ok = true;
  try {
    for (const part of parts) {
      const scenarios = await runPart({ ...suite, url: build.url, interrupt }, part, nameOf(shape));
      const excused = part === 'requirements_2025_11_25' && !shape.sessions ? NEED_SESSIONS : [];
      tallies[part] = tally(part, scenarios);
      ok = judge(part, scenarios, excused) && ok;
    }
  } finally {
    await build.stop();
  }
  return { ok, tallies };
}

/** How a shape is called where several are run. */
export const nameOf = ({ apis, queue, sessions }: Shape) =>
  `${apis}-api-${queue}${sessions ? '' : '-stateless'}`;

async function runPart(target: Target, part: Part, shape: string): Promise<Scenario[]> {
  if (part !== 'tasks') {
    const revision = part.replace('requirements_', '').replaceAll('_', '-');
    return runSuite(target, `${shape}/${part}`, ['--requirements', revision]);
  }
  const scenarios: Scenario[] = [];
  for (const name of TASKS) {
    scenarios.push(...(await runSuite(target, `${shape}/tasks/${name}`, ['--scenario', name])));
  }
  return scenarios;
}

function tally(part: Part, scenarios: Scenario[]): Tally {
  const failed = scenarios.filter(isFailed).length;
  const counted = { scenarios: scenarios.length, passed: scenarios.length - failed };
  const checks_failed = countChecks(scenarios, 'FAILURE');
  if (part !== 'tasks') return { ...counted, checks_failed };
  const skipped = scenarios.filter(isSkipped).length;
  const checks = countChecks(scenarios, 'SUCCESS', 'FAILURE');
  return { ...counted, passed: counted.passed - skipped, skipped, checks, checks_failed };
}

/** Prints what is wrong; right is that just those fail that are `excused`. */
function judge(part: Part, scenarios: Scenario[], excused: readonly string[]): boolean {
  console.log(`${part}: ${scenarios.length} scenarios`);
  scenarios.filter(({ name }) => !excused.includes(name)).forEach(report);
  const failed = scenarios.filter(isFailed).map(({ name }) => name);
  for (const name of excused) {
    console.log(`  ${name} ${failed.includes(name) ? 'fails' : 'does not fail'} without a session`);
  }
  const isExpected = failed.length === excused.length && excused.every((name) => failed.includes(name));
  if (scenarios.length !== SCENARIOS[part]) console.log(`  ${SCENARIOS[part]} were expected to run`);
  return isExpected && scenarios.length === SCENARIOS[part];
}
