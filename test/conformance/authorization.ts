import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { freePort } from '../../libs/persistence/embedded/index.js';
import { testDatabase } from '../support/database.js';
import { startTestApi } from '../support/mcp.js';
import { Browser, makePerson } from '../support/oauth.js';
import { RawOauth } from '../support/oauth-raw.js';
import { CACHE, installSuite } from './install.js';
import { countChecks, isFailed, report, type Scenario } from './suite.js';

const RUN_MS = 120_000;
const RESULT = /^authorization-server-(.+)-\d{4}-\d{2}-\d{2}T[\d-]+Z$/;
/** Of this version of the suite: fewer must not pass for all. */
const CHECKS = 3;

export interface AuthorizationTally {
  scenarios: number;
  checks: number;
  checks_failed: number;
}

/** Runs the suite's authorization part against the built-in server; a person logs in and allows where the suite asks for one. */
export async function conformAuthorization(
  interrupt: AbortSignal,
): Promise<{ ok: boolean; tally: AuthorizationTally }> {
  const suite = await installSuite();
  const database = await testDatabase();
  try {
    const api = await startTestApi(database.url);
    try {
      const origin = `http://127.0.0.1:${api.port}`;
      const person = await makePerson(database.db);
      const scenarios = await run(suite, origin, interrupt, async (asked) => {
        await fetch(await new Browser([origin]).allow(asked, person));
      });
      scenarios.forEach(report);
      const tally = {
        scenarios: scenarios.length,
        checks: countChecks(scenarios, 'SUCCESS'),
        checks_failed: countChecks(scenarios, 'FAILURE', 'WARNING', 'SKIPPED'),
      };
      const ok = !scenarios.some(isFailed) && tally.checks === CHECKS && tally.checks_failed === 0;
      return { ok, tally };
    } finally {
      await api.close();
    }
  } finally {
    await database.drop();
  }
}

async function run(
  { node, main }: { node: string; main: string },
  origin: string,
  interrupt: AbortSignal,
  visit: (asked: URL) => Promise<void>,
): Promise<Scenario[]> {
  const folder = join(CACHE, 'results/authorization');
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const port = await freePort(0);
  const client = new RawOauth(origin);
  await client.register({ redirect_uris: [`http://127.0.0.1:${port}/callback`] });
  const args = ['--url', origin, '--client-id', client.clientId, '--port', String(port), '-o', folder];
  const child = spawn(node, [main, 'authorization', ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
    timeout: RUN_MS,
    signal: interrupt,
  });
  const ended = once(child, 'close');
  for await (const line of createInterface(child.stdout))
    if (line.startsWith(`${origin}/oauth/authorize?`)) await visit(new URL(line));
  await ended;
  return readdirSync(folder).flatMap((entry) => {
    const [, name] = RESULT.exec(entry) ?? [];
    if (name === undefined) return [];
    const checks = JSON.parse(readFileSync(join(folder, entry, 'checks.json'), 'utf8')) as Scenario['checks'];
    return [{ name, checks }];
  });
}
