// npm run bench:mcp: how many calls of a trivial tool a second the API answers, with everything loaded, authenticated and
// audited, for each one that a server of the SDK alone answers.
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { Agent, request } from 'node:http';
import { join } from 'node:path';
import { catalog, toolsets } from '@longhaul/toolsets/catalog';
import { countTokens } from 'gpt-tokenizer/encoding/o200k_base';
import { TEST_SECRETS_KEYS, makeUser, testDatabase, type TestDatabase } from '../support/database.js';
import { ownMs, postmasterOf, processorMs, serverMs } from './processor.js';

const API = join(import.meta.dirname, '../../dist/apps/api/main.js');
const BARE = join(import.meta.dirname, 'bare-mcp.mjs');
/** Connections of each side, each with one call under way. */
const IN_FLIGHT = 32;
const ROUNDS = 9;
const ROUND_MS = 2_000;

const REVISION = '2026-07-28';
const CALL = JSON.stringify({
  jsonrpc: '2.0',
  id: 1,
  method: 'tools/call',
  params: {
    name: 'whoami',
    arguments: {},
    _meta: {
      'io.modelcontextprotocol/protocolVersion': REVISION,
      'io.modelcontextprotocol/clientInfo': { name: 'bench', version: '1.0.0' },
      'io.modelcontextprotocol/clientCapabilities': {},
    },
  },
});

interface Side {
  process: ChildProcess;
  port: number;
  path: string;
  headers: Record<string, string | number>;
  agent: Agent;
  /** Calls so far. */
  answered: number;
}

interface Answer {
  result?: { structuredContent?: object };
}

async function start(module: string, env: NodeJS.ProcessEnv, path: string, token: string): Promise<Side> {
  const child = fork(module, {
    env: { PATH: process.env.PATH, NODE_ENV: 'production', ...env },
    // --cpu-prof, for example.
    execArgv: process.env.BENCH_NODE_FLAGS?.split(' ') ?? [],
  });
  const [{ port }] = (await once(child, 'message')) as [{ port: number }];
  const agent = new Agent({ keepAlive: true, maxSockets: IN_FLIGHT });
  const headers = {
    'content-type': 'application/json',
    'content-length': CALL.length,
    accept: 'application/json, text/event-stream',
    authorization: `Bearer ${token}`,
    'mcp-protocol-version': REVISION,
    'mcp-method': 'tools/call',
    'mcp-name': 'whoami',
  };
  return { process: child, port, path, headers, agent, answered: 0 };
}

async function stop({ process: child, agent }: Side): Promise<void> {
  agent.destroy();
  const ended = once(child, 'exit');
  child.disconnect();
  await ended;
}

/** One call; throws unless it was answered as it should be. */
async function call(side: Side): Promise<object> {
  const { status, body } = await send(side);
  const { result } = JSON.parse(body) as Answer;
  if (status !== 200 || !result?.structuredContent) throw new Error(`${status}: ${body}`);
  side.answered++;
  return result.structuredContent;
}

/** Takes little of the processor, which the servers need. */
function send({ port, path, agent, headers }: Side): Promise<{ status?: number; body: string }> {
  return new Promise((resolve, reject) => {
    const options = { host: '127.0.0.1', port, path, agent, method: 'POST', headers };
    const sent = request(options, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => (body += chunk));
      response.on('end', () => resolve({ status: response.statusCode, body }));
      response.on('error', reject);
    });
    sent.on('error', reject);
    sent.end(CALL);
  });
}

/** Calls a second, of as many at once as clients that work hard have. */
async function round(side: Side, ms: number): Promise<number> {
  const begun = performance.now();
  const before = side.answered;
  const client = async () => {
    while (performance.now() - begun < ms) await call(side);
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, client));
  return ((side.answered - before) * 1000) / (performance.now() - begun);
}

const median = (values: number[]) => [...values].sort((a, b) => a - b)[values.length >> 1]!;

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
  await round(ours, ROUND_MS);
  await round(bare, ROUND_MS);
  const before = spent(ours, bare, postmaster);
  const rates: { ours: number; bare: number }[] = [];
  // In turns, so that what else the machine does meets both.
  for (let n = 0; n < ROUNDS; n++) {
    const rate = { ours: await round(ours, ROUND_MS), bare: await round(bare, ROUND_MS) };
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
    const ours = await start(API, env, '/mcp?toolsets=all', token);
    sides.push(ours);
    // Of the same size, character by character.
    const answer = JSON.stringify(await call(ours));
    const bare = await start(BARE, { BARE_ANSWER: answer }, '/mcp', token);
    sides.push(bare);
    const ratio = await measure(ours, bare, await postmasterOf(database.db));
    await requireAudit(database, ours.answered);
    const shown = catalog.filter(({ toolset }) => toolsets[toolset as keyof typeof toolsets].default);
    return {
      ratio: Math.round(ratio * 100) / 100,
      tools: catalog.length,
      default_tools: shown.length,
      default_tokens: countTokens(JSON.stringify({ tools: shown.map(({ listed }) => listed) })),
    };
  } finally {
    await Promise.all(sides.map(stop));
    await database.drop();
  }
}
