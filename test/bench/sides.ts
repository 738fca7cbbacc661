// Two servers that are called alike, to be compared: the API and what the SDK alone makes of the same tool.
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { Agent, request } from 'node:http';
import { NODE_FLAGS, firstMessage } from './programs.js';

/** Connections of each side, each with one call under way. */
const IN_FLIGHT = 32;
const REVISION = '2026-07-28';

export interface Side {
  process: ChildProcess;
  /** Stable over the whole of its life. */
  call: ToolCall;
  port: number;
  path: string;
  token: string;
  agent: Agent;
  /** Calls so far. */
  answered: number;
  /** Of each call so far, in milliseconds. */
  times: number[];
}

/** The tool, and its arguments of the next call. */
export interface ToolCall {
  tool: string;
  next(): object;
}

interface Answer {
  result?: { structuredContent?: object; isError?: boolean };
}

export async function startSide(
  module: string,
  env: NodeJS.ProcessEnv,
  path: string,
  token: string,
  call: ToolCall,
): Promise<Side> {
  const child = fork(module, {
    env: { PATH: process.env.PATH, NODE_ENV: 'production', ...env },
    execArgv: NODE_FLAGS,
  });
  const { port } = await firstMessage<{ port: number }>(child);
  const agent = new Agent({ keepAlive: true, maxSockets: IN_FLIGHT });
  return { process: child, call, port, path, token, agent, answered: 0, times: [] };
}

export async function stopSide({ process: child, agent }: Side): Promise<void> {
  agent.destroy();
  const ended = once(child, 'exit');
  child.disconnect();
  await ended;
}

/** One call; throws unless it was answered as it should be. */
export async function callOnce(side: Side): Promise<object> {
  const begun = performance.now();
  const { status, body } = await send(side);
  const { result } = JSON.parse(body) as Answer;
  if (status !== 200 || !result?.structuredContent || result.isError) throw new Error(`${status}: ${body}`);
  side.times.push(performance.now() - begun);
  side.answered++;
  return result.structuredContent;
}

/** Takes little of the processor, which the servers need. */
function send({ call, port, path, token, agent }: Side): Promise<{ status?: number; body: string }> {
  const text = JSON.stringify({
    jsonrpc: '2.0',
    id: 1,
    method: 'tools/call',
    params: {
      name: call.tool,
      arguments: call.next(),
      _meta: {
        'io.modelcontextprotocol/protocolVersion': REVISION,
        'io.modelcontextprotocol/clientInfo': { name: 'bench', version: '1.0.0' },
        'io.modelcontextprotocol/clientCapabilities': {},
      },
    },
  });
  const headers = {
    'content-type': 'application/json',
    'content-length': text.length,
    accept: 'application/json, text/event-stream',
    authorization: `Bearer ${token}`,
    'mcp-protocol-version': REVISION,
    'mcp-method': 'tools/call',
    'mcp-name': call.tool,
  };
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
    sent.end(text);
  });
}

/** Calls a second, of as many at once as clients that work hard have. */
export async function callsPerSecond(side: Side, ms: number): Promise<number> {
  const begun = performance.now();
  const before = side.answered;
  const client = async () => {
    while (performance.now() - begun < ms) await callOnce(side);
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, client));
  return ((side.answered - before) * 1000) / (performance.now() - begun);
}
