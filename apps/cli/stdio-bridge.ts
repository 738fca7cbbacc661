import { StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import type { JSONRPCMessage } from '@modelcontextprotocol/server';
import { StdioServerTransport } from '@modelcontextprotocol/server/stdio';
import { fromEnvironment } from './environment.js';
import { homeDirectory } from './home.js';
import { readReadyFile } from './ready-file.js';
import { UsageError } from './usage.js';

/** JSON-RPC's code for what the server, not the caller, got wrong. */
const INTERNAL_ERROR = -32603;

/**
 * Serves MCP on stdin and stdout for clients that know nothing else: every message goes to a running Longhaul over HTTP and
 * its answers come back, in whichever revision the client speaks. Resolves when stdin ends.
 */
export async function bridgeStdio(): Promise<void> {
  const { url, token } = server();
  const stdio = new StdioServerTransport();
  const http = new StreamableHTTPClientTransport(url, {
    requestInit: { headers: { authorization: `Bearer ${token}` } },
  });
  const ended = new Promise<void>((resolve) => (stdio.onclose = resolve));
  const complain = (error: Error) => process.stderr.write(`longhaul: ${error.message}\n`);
  stdio.onerror = http.onerror = complain;

  let initialize: unknown;
  stdio.onmessage = (message) => {
    if ('method' in message && message.method === 'initialize' && 'id' in message) initialize = message.id;
    // A request that cannot be delivered is answered all the same, or its client would wait for ever.
    http.send(message).catch((error: Error) => answer(stdio, message, error));
  };
  http.onmessage = (message) => {
    // From then on each request names the revision that was agreed on (2025-11-25, Transports).
    if ('result' in message && message.id === initialize) {
      const { protocolVersion } = message.result as { protocolVersion?: unknown };
      if (typeof protocolVersion === 'string') http.setProtocolVersion(protocolVersion);
    }
    void stdio.send(message);
  };

  await http.start();
  await stdio.start();
  await ended;
  await http.close();
}

function answer(stdio: StdioServerTransport, message: JSONRPCMessage, error: Error): void {
  if (!('method' in message) || !('id' in message)) return;
  const { id } = message;
  const failure = { code: INTERNAL_ERROR, message: `Longhaul cannot be reached: ${error.message}` };
  void stdio.send({ jsonrpc: '2.0', id, error: failure });
}

/** LONGHAUL_URL and LONGHAUL_TOKEN, or what `up` left in this machine's ready.json. */
function server(): { url: URL; token: string } {
  const ready = readReadyFile({ directory: homeDirectory() });
  const url = fromEnvironment('LONGHAUL_URL') ?? ready?.mcp_url;
  const token = fromEnvironment('LONGHAUL_TOKEN') ?? ready?.token;
  if (!url || !token || !URL.canParse(url)) {
    throw new UsageError('Start Longhaul with npm start, or set LONGHAUL_URL and LONGHAUL_TOKEN.');
  }
  return { url: new URL(url), token };
}
