// npm run bench -- mcp: how many calls of a trivial tool a second the API answers, with everything loaded, authenticated and
// audited, for each one that a server of the SDK alone answers.
import { join } from 'node:path';
import { catalog, toolsets } from '@longhaul/toolsets/catalog';
import { countTokens } from 'gpt-tokenizer/encoding/o200k_base';
import { TEST_SECRETS_KEYS, makeUser, testDatabase, type TestDatabase } from '../support/database.js';
import { median, round } from './figures.js';
import { ownMs, postmasterOf, processorMs, serverMs } from './processor.js';
import { callOnce, callsPerSecond, startSide, stopSide, type Side } from './sides.js';

const API = join(import.meta.dirname, '../../dist/apps/api/main.js');
const BARE = join(import.meta.dirname, 'bare-mcp.mjs');
const ROUNDS = 9;
const ROUND_MS = 2_000;
const WHOAMI = { tool: 'whoami', next: () => ({}) };

/** What everybody has used of the processors so far, in milliseconds, and how many calls were answered for it. */
const spent = (ours: Side, bare: Side, postmaster: number) => ({
  api: processorMs(ours.process.pid!),
  database: serverMs(postmaster),
  bare: processorMs(bare.process.pid!),
  client: ownMs(),
  ourCalls: ours.answered,
  bareCalls: bare.answered,
});

async function measure(ours: Side, bare: Side, postmaster: number) {
  await callsPerSecond(ours, ROUND_MS);
  await callsPerSecond(bare, ROUND_MS);
  const before = spent(ours, bare, postmaster);
  const rates: { ours: number; bare: number }[] = [];
  // In turns, so that what else the machine does meets both.
  for (let n = 0; n < ROUNDS; n++) {
    const rate = { ours: await callsPerSecond(ours, ROUND_MS), bare: await callsPerSecond(bare, ROUND_MS) };
    console.log(`Longhaul ${Math.round(rate.ours)}/s, bare ${Math.round(rate.bare)}/s`);
    rates.push(rate);
  }
  const perSecond = (name: 'ours' | 'bare') => Math.round(median(rates.map((rate) => rate[name])));
  console.log(`medians: Longhaul ${perSecond('ours')}/s, bare ${perSecond('bare')}/s`);
  const after = spent(ours, bare, postmaster);
  const used = (name: keyof typeof after) => after[name] - before[name];
  const [ourCalls, bareCalls] = [used('ourCalls'), used('bareCalls')];
  const us = (ms: number, calls: number) => `${Math.round((ms * 1000) / calls)} µs`;
  console.log(
    `processor time of a call: Longhaul ${us(used('api'), ourCalls)} and PostgreSQL ${us(used('database'), ourCalls)}, ` +
      `bare ${us(used('bare'), bareCalls)}; the client ${us(used('client'), ourCalls + bareCalls)}`,
  );
  return median(rates.map((rate) => rate.ours / rate.bare));
}

async function requireAudit({ db }: TestDatabase, calls: number) {
  const [row] = await db.$queryRaw<{ audited: number }[]>`
    SELECT count(*)::int AS audited FROM audit_events WHERE tool = 'whoami' AND result = 'ok'`;
  if (row!.audited !== calls) throw new Error(`${calls} calls were answered, ${row!.audited} audited`);
}

export default async function mcp(): Promise<object> {
  const database = await testDatabase();
  const sides: Side[] = [];
  try {
    const { token } = await makeUser(database.db);
    const env = {
      DATABASE_URL: database.url,
      SECRETS_KEYS: TEST_SECRETS_KEYS,
      PORT: '0',
      LOG_LEVEL: 'warn',
      // The rate is counted as ever, but not reached.
      RATE_CALLS: '1000000',
    };
    const ours = await startSide(API, env, '/mcp?toolsets=all', token, WHOAMI);
    sides.push(ours);
    // Of the same size, character by character.
    const answer = JSON.stringify(await callOnce(ours));
    const bare = await startSide(BARE, { BARE_ANSWER: answer }, '/mcp', token, WHOAMI);
    sides.push(bare);
    const ratio = await measure(ours, bare, await postmasterOf(database.db));
    await requireAudit(database, ours.answered);
    const shown = catalog.filter(({ toolset }) => toolsets[toolset as keyof typeof toolsets].default);
    return {
      mcp_ratio: round(ratio),
      tools: catalog.length,
      default_tools: shown.length,
      default_tokens: countTokens(JSON.stringify({ tools: shown.map(({ listed }) => listed) })),
    };
  } finally {
    await Promise.all(sides.map(stopSide));
    await database.drop();
  }
}
