import { getEventListeners, once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AgentChannel } from './agent-channel.js';
import {
  AgentRefusal,
  base64Field,
  countField,
  LineReader,
  parseAnswer,
  ProtocolViolation,
} from './answers.js';
import { AgentConnection } from './connection.js';

const bytes = (text: string) => Buffer.from(text, 'latin1');
const lines = (reader: LineReader, text: string) => reader.push(bytes(text)).map(String);

describe('LineReader', () => {
  it('skips what came before the sentinel, however it is cut', () => {
    const reader = new LineReader(100);
    expect(lines(reader, 'old"}\n{"ha')).toEqual([]);
    expect(lines(reader, 'lf\n\xff{"a"')).toEqual([]);
    expect(lines(reader, ':1}\n{"b":2}\n{"c')).toEqual(['{"a":1}', '{"b":2}']);
    expect(lines(reader, '":3}\n')).toEqual(['{"c":3}']);
  });

  it('keeps no more than its bound, be it in one piece or in many', () => {
    expect(() => new LineReader(100).push(bytes(`\xff${'x'.repeat(101)}`))).toThrow(ProtocolViolation);
    const reader = new LineReader(100);
    reader.push(bytes('\xff'));
    expect(() => Array.from({ length: 101 }, () => reader.push(bytes('x')))).toThrow(ProtocolViolation);
  });

  it('never keeps what it skips', () => {
    const reader = new LineReader(100);
    expect(lines(reader, 'x'.repeat(100_000))).toEqual([]);
    expect(lines(reader, '\xff{}\n')).toEqual(['{}']);
  });
});

describe('answers', () => {
  it('give their value or the error of the agent', () => {
    expect(parseAnswer(bytes('{"return": {}}'))).toEqual({});
    const refusal = parseAnswer(
      bytes('{"error": {"class": "GenericError", "desc": "no\\u0000 \\u001b[31m"}}'),
    );
    expect(refusal).toBeInstanceOf(AgentRefusal);
    expect((refusal as Error).message).toBe('no   [31m');
  });

  it.each(['', '{', 'null', '[]', '"return"', '{"error": "x"}', '{}', '['.repeat(100)])(
    'refuse %j',
    (text) => {
      expect(() => parseAnswer(bytes(text))).toThrow(ProtocolViolation);
    },
  );

  it('do not fall over deep nesting', () => {
    expect(() => parseAnswer(bytes('['.repeat(1_000_000)))).toThrow(ProtocolViolation);
  });

  it.each([-1, 1.5, '1', null, 2 ** 60, undefined])('refuse the number %p', (count) => {
    expect(() => countField({ count }, 'count')).toThrow(ProtocolViolation);
  });

  it.each(['a', '====', 'YQ=a', 'YQ\n=', 'YWFh', 7])('refuse the base64 text %p for 2 bytes', (text) => {
    expect(() => base64Field({ text }, 'text', 2)).toThrow(ProtocolViolation);
  });
});

describe('AgentChannel with a hostile guest', () => {
  let directory: string;
  let server: Server;
  const sockets: Socket[] = [];

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'longhaul-hostile-'));
  });

  afterEach(async () => {
    for (const socket of sockets.splice(0)) socket.destroy();
    if (server) await new Promise((resolve) => server.close(resolve));
    rmSync(directory, { recursive: true });
  });

  /** `answer` gets every request and says what to send; undefined ends nothing and sends nothing. */
  async function guest(
    answer: (request: { execute: string; arguments: { id: number } }) => string | undefined,
  ) {
    const socketPath = join(directory, 'agent.sock');
    server = createServer((socket) => {
      sockets.push(socket);
      socket.on('error', () => {});
      socket.on('data', (data) => {
        for (const line of data.toString('latin1').replace(/^\xff/, '').trim().split('\n')) {
          const text = answer(JSON.parse(line));
          if (text !== undefined) socket.write(text, 'latin1');
        }
      });
    }).listen(socketPath);
    await once(server, 'listening');
    return new AgentChannel({ socketPath, lockDirectory: directory, answerMs: 200 });
  }

  const synced = (id: number) => `\xff{"return": ${id}}\n`;
  const afterSync = (text: string | undefined) =>
    guest((request) => (request.execute === 'guest-sync-delimited' ? synced(request.arguments.id) : text));

  it('finds the answer to its sync behind leftovers of former sessions', async () => {
    const channel = await guest(({ execute, arguments: { id } = { id: 0 } }) =>
      execute === 'guest-ping'
        ? '{"return": {}}\n'
        : `alf"}\n{"return": 7}\n\xff{"return": 1}\n{"return": {"x": 1}}\nnonsense\n${synced(id)}`,
    );
    await channel.session((session) => session.ping());
  });

  it.each([
    ['nonsense', 'hello\n'],
    ['an answer to nothing', '{"return": {}}\n{"return": {}}\n{"return": {}}\n'],
    ['an endless line', 'x'.repeat(5 * 1024 * 1024)],
    ['another type', '{"return": "yes"}\n'],
    ['a negative handle count', '{"return": {"count": -5, "buf-b64": "!"}}\n'],
  ])('calls it unreachable when it answers %s', async (_what, text) => {
    const channel = await afterSync(text);
    const session = channel.session((guest) => guest.readFile('/etc/hostname', 0, 100));
    await expect(session).rejects.toMatchObject({ code: 'guest_unreachable' });
  });

  it('calls it unreachable when it does not answer, half answers, or floods instead of a sync', async () => {
    for (const text of [undefined, '{"return": ', 'y\n'.repeat(1_000_000)]) {
      const channel = await guest(() => text);
      const session = channel.session((guest) => guest.ping());
      await expect(session).rejects.toMatchObject({ code: 'guest_unreachable' });
      await new Promise((resolve) => {
        for (const socket of sockets.splice(0)) socket.destroy();
        server.close(resolve);
      });
    }
  });

  it('calls it unreachable when the socket is missing, and when it hangs up', async () => {
    const nobody = new AgentChannel({ socketPath: join(directory, 'none.sock'), lockDirectory: directory });
    await expect(nobody.session((guest) => guest.ping())).rejects.toMatchObject({
      code: 'guest_unreachable',
    });
    const channel = await afterSync(undefined);
    const session = channel.session((guest) => {
      const ping = guest.ping();
      sockets[0]!.destroy();
      return ping;
    });
    await expect(session).rejects.toMatchObject({ code: 'guest_unreachable' });
  });

  it('leaves nothing on its signal when it cannot connect, as it is tried again under the same one', async () => {
    const { signal } = new AbortController();
    const open = AgentConnection.open(createConnection(join(directory, 'none.sock')), 200, signal);
    await expect(open).rejects.toMatchObject({ code: 'guest_unreachable' });
    expect(getEventListeners(signal, 'abort')).toEqual([]);
  });

  it('ends with the hold even when neither the guest nor the caller ever comes back', async () => {
    const channel = await afterSync(undefined);
    const session = channel.session(() => new Promise(() => {}), { holdMs: 50 });
    await expect(session).rejects.toMatchObject({ code: 'unavailable' });
    await once(sockets[0]!, 'close');
  });

  it('thaws file systems that somebody left frozen, and asks again', async () => {
    const asked: string[] = [];
    let frozen = true;
    const channel = await guest(({ execute, arguments: args }) => {
      if (execute === 'guest-sync-delimited') return synced(args.id);
      asked.push(execute);
      if (execute === 'guest-fsfreeze-status') return '{"return": "frozen"}\n';
      if (execute === 'guest-fsfreeze-thaw') frozen = false;
      if (frozen)
        return '{"error": {"class": "CommandNotFound", "desc": "Command guest-exec has been disabled"}}\n';
      return execute === 'guest-exec' ? '{"return": {"pid": 5}}\n' : '{"return": 3}\n';
    });
    expect(await channel.session((session) => session.spawn({ path: 'true' }))).toMatchObject({ pid: 5 });
    expect(asked).toEqual(['guest-exec', 'guest-fsfreeze-status', 'guest-fsfreeze-thaw', 'guest-exec']);
  });
});
