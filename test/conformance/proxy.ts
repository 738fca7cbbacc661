import { createServer, request, type IncomingMessage } from 'node:http';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { pipeline } from 'node:stream';

export interface Proxy {
  port: number;
  close(): Promise<void>;
}

/**
 * Stands between the suite, which sends no token, and the APIs. Requests go to each in turn, but those of a session to the API
 * that made it, as a balancer in front of sessions must do. All else passes as it is, Host and Origin too, and streams.
 */
export async function startProxy(ports: readonly number[], token: string): Promise<Proxy> {
  const sessions = new Map<string, number>();
  let turn = 0;

  const portFor = ({ headers }: IncomingMessage) =>
    sessions.get(String(headers['mcp-session-id'])) ?? ports[turn++ % ports.length]!;

  const server = createServer((incoming, outgoing) => {
    const { method, url: path, rawHeaders } = incoming;
    const port = portFor(incoming);
    const headers = [...rawHeaders, 'Authorization', `Bearer ${token}`];
    const upstream = request({ host: '127.0.0.1', port, method, path, headers, agent: false }, (answer) => {
      const session = answer.headers['mcp-session-id'];
      if (typeof session === 'string') sessions.set(session, port);
      outgoing.writeHead(answer.statusCode!, answer.rawHeaders);
      // A stream's headers matter to the client before its first event does.
      outgoing.flushHeaders();
      pipeline(answer, outgoing, () => undefined);
    });
    upstream.on('error', () => outgoing.destroy());
    // A client that goes away says something by it.
    outgoing.on('close', () => upstream.destroy());
    incoming.pipe(upstream);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    async close() {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}
