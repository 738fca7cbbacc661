import { once } from 'node:events';
import { request, type IncomingMessage } from 'node:http';
import { eventually } from './eventually.js';
import { TASKS, modernRequest } from './tasks.js';

export interface Frame {
  id?: string | number;
  method?: string;
  params?: Record<string, unknown> & { _meta?: Record<string, unknown> };
  result?: Record<string, unknown>;
  error?: { code: number; message: string; data?: Record<string, unknown> };
}

/** A stream of `subscriptions/listen` as the wire has it. */
export interface Listener {
  status: number;
  /** All that has come, in its order; of an answer that is no stream, the answer. */
  frames: Frame[];
  /** No more comes: how it ended is in the last frame. */
  ended(): boolean;
  /** The first frame for which `is` holds. */
  frame(is: (frame: Frame) => boolean): Promise<Frame>;
  /** Every task that was told about, in its order. */
  tasks(): Record<string, unknown>[];
  /** How often a resource was said to have changed. */
  updates(uri: string): number;
  response: IncomingMessage;
  close(): void;
}

export async function listen(
  url: URL,
  token: string,
  notifications: object,
  {
    capabilities = TASKS,
    id = 'sub-1',
    read = true,
  }: { capabilities?: object; id?: string | number; read?: boolean } = {},
): Promise<Listener> {
  const { body, ...options } = modernRequest(
    token,
    'subscriptions/listen',
    { notifications },
    capabilities,
    id,
  );
  const outgoing = request(url, { ...options, agent: false });
  outgoing.end(body);
  const [response] = (await once(outgoing, 'response')) as [IncomingMessage];
  // What is cut off is not the test's fault.
  response.on('error', () => undefined);
  const frames: Frame[] = [];
  let text = '';
  if (read) {
    response.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
      const events = text.split('\n\n');
      text = events.pop()!;
      for (const event of events) {
        const [, data] = /^data: (.*)$/m.exec(event) ?? [];
        if (data) frames.push(JSON.parse(data) as Frame);
      }
    });
    response.on('end', () => text && frames.push(JSON.parse(text) as Frame));
  }
  return {
    status: response.statusCode!,
    frames,
    ended: () => response.closed,
    frame: (is) => eventually(() => frames.find(is), { withinMs: 40_000 }),
    tasks: () => frames.filter(({ method }) => method === 'notifications/tasks').map(({ params }) => params!),
    updates: (uri) =>
      frames.filter(
        ({ method, params }) => method === 'notifications/resources/updated' && params?.uri === uri,
      ).length,
    response,
    close: () => outgoing.destroy(),
  };
}
