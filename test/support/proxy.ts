import { createServer, request, type IncomingMessage } from 'node:http';
import { once } from 'node:events';
import { connect, type AddressInfo, type Socket } from 'node:net';
import { pipeline } from 'node:stream';

const LOOK_MS = 200;

export interface Proxy {
  port: number;
  close(): Promise<void>;
}

/**
 * A balancer in front of APIs. Requests go to each in turn, but those of a session to the API that made it, as a balancer in
 * front of sessions must do; an API that says it is not ready gets none while another one will have them, one that takes no
 * connection is passed over, and with all of them away the answer is 502. All else passes as it is, Host and Origin too, and streams. `token` is added to requests of clients that send none.
 */
export async function startProxy(ports: readonly number[], token?: string): Promise<Proxy> {
  const sessions = new Map<string, number>();
  const unready = new Set<number>();
  let turn = 0;

  const look = async (port: number) => {
    const asked = fetch(`http://127.0.0.1:${port}/readyz`, { signal: AbortSignal.timeout(LOOK_MS * 5) });
    const isReady = await asked.then(({ ok }) => ok).catch(() => false);
    if (isReady) unready.delete(port);
    else unready.add(port);
  };
  const looking = setInterval(() => ports.forEach(look), LOOK_MS);

  const inTurn = ({ headers }: IncomingMessage): number[] => {
    const first = turn++ % ports.length;
    const all = [...ports.slice(first), ...ports.slice(0, first)].sort(
      (one, other) => Number(unready.has(one)) - Number(unready.has(other)),
    );
    const mine = sessions.get(String(headers['mcp-session-id']));
    return mine === undefined ? all : [mine, ...all.filter((port) => port !== mine)];
  };

  const server = createServer(async (incoming, outgoing) => {
    const { method, url: path, rawHeaders } = incoming;
    const taken = await firstThatTakes(inTurn(incoming));
    if (!taken) return outgoing.writeHead(502).end();
    const { port, socket } = taken;
    if (outgoing.destroyed) return socket.destroy();
    const headers = token ? [...rawHeaders, 'Authorization', `Bearer ${token}`] : rawHeaders;
    const options = { method, path, headers, createConnection: () => socket };
    const upstream = request(options, (answer) => {
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
      clearInterval(looking);
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

async function firstThatTakes(ports: number[]): Promise<{ port: number; socket: Socket } | undefined> {
  for (const port of ports) {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true });
    const open = await once(socket, 'connect').then(
      () => true,
      () => false,
    );
    if (open) return { port, socket };
  }
  return undefined;
}
