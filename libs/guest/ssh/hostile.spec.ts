import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type AddressInfo, type Server as TcpServer, type Socket } from 'node:net';
import type { Writable } from 'node:stream';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Server, utils, type Connection, type ServerChannel } from 'ssh2';
import { makeSshKey } from '../../../test/support/ssh-key.js';
import { SshChannel, type SshChannelOptions } from './ssh-channel.js';
import { checkPrivateKey, fingerprintOf, parseHostKey } from './target.js';

const hostKey = makeSshKey();
const userKey = makeSshKey();
const fingerprint = fingerprintOf(Buffer.from(hostKey.public.split(' ')[1]!, 'base64'));
const unreachable = (message?: RegExp) => ({
  code: 'guest_unreachable',
  ...(message && { message: expect.stringMatching(message) }),
});

describe('SshChannel with a hostile machine', () => {
  let directory: string;
  const servers: (TcpServer | Server)[] = [];
  const sockets: Socket[] = [];
  const connections: Connection[] = [];
  const channels: SshChannel[] = [];

  beforeEach(() => (directory = mkdtempSync(join(tmpdir(), 'longhaul-ssh-'))));
  afterEach(async () => {
    for (const channel of channels.splice(0)) channel.close();
    for (const socket of sockets.splice(0)) socket.destroy();
    for (const connection of connections.splice(0)) connection.end();
    for (const server of servers.splice(0)) await new Promise<unknown>((resolve) => server.close(resolve));
    rmSync(directory, { recursive: true });
  });

  async function channelTo(server: TcpServer | Server, options: Partial<SshChannelOptions> = {}) {
    servers.push(server);
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const channel = new SshChannel({
      host: '127.0.0.1',
      port,
      user: 'root',
      hostKey: fingerprint,
      privateKey: userKey.private,
      lockDirectory: directory,
      connectMs: 30_000,
      answerMs: 30_000,
      ...options,
    });
    channels.push(channel);
    return channel;
  }

  /** A machine that speaks no SSH. */
  const rawServer = (greet: (socket: Socket) => void) =>
    createServer((socket) => {
      sockets.push(socket);
      socket.on('error', () => {}).resume();
      greet(socket);
    });

  const serverThat = (serve: (connection: Connection) => void) =>
    new Server({ hostKeys: [hostKey.private] }, (connection) => {
      connections.push(connection.on('error', () => {}));
      serve(connection);
    });

  /** One that lets everybody in; `shell` gets each channel on which a program should run. */
  const sshServer = (shell: (channel: ServerChannel, connection: Connection) => void) =>
    serverThat((connection) => {
      connection.on('authentication', (attempt) => attempt.accept());
      connection.on('session', (accept) =>
        accept().on('exec', (acceptExec) =>
          shell(
            acceptExec().on('error', () => {}),
            connection,
          ),
        ),
      );
    });

  /** What our script prints first: the mark is in the script, which comes on the input. */
  const withMark = (channel: ServerChannel, act: (mark: string) => void) =>
    channel.once('data', (input: Buffer) => act(/longhaul-[0-9a-f-]{36}/.exec(input.toString())![0]));

  const ping = (channel: SshChannel) => channel.session((guest) => guest.ping());

  it('refuses another host key before it sends a name or a key', async () => {
    let attempts = 0;
    const server = serverThat((connection) => {
      connection.on('authentication', () => attempts++);
    });
    const other = `SHA256:${'A'.repeat(43)}`;
    const channel = await channelTo(server, { hostKey: other });
    await expect(ping(channel)).rejects.toMatchObject(unreachable(/another host key.*nothing was sent/s));
    await expect(ping(channel)).rejects.toThrow(`${fingerprint} instead of ${other}`);
    expect(attempts).toBe(0);
  });

  it('asks for no other kind of key than that of a pinned whole key', async () => {
    const channel = await channelTo(
      sshServer(() => {}),
      {
        hostKey: utils.generateKeyPairSync('ecdsa', { bits: 256 }).public,
      },
    );
    await expect(ping(channel)).rejects.toMatchObject(unreachable(/no matching host key/));
  });

  it('says that the login was refused', async () => {
    const server = serverThat((connection) => {
      connection.on('authentication', (attempt) => attempt.reject(['publickey']));
    });
    await expect(ping(await channelTo(server))).rejects.toMatchObject(unreachable(/refused the login/));
  });

  it.each([
    ['says nothing', () => {}],
    ['speaks another protocol', (socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')],
    ['greets with garbage', (socket) => socket.write(Buffer.alloc(4_000, 0xff))],
    ['greets without end', (socket) => flood(socket, Buffer.from('x'.repeat(60) + '\r\n'))],
    ['sends one line without end', (socket) => flood(socket, Buffer.alloc(65_536, 0x78))],
    ['hangs up', (socket) => socket.destroy()],
    ['sends garbage for keys', (socket) => flood(socket, Buffer.from(`SSH-2.0-x\r\n${'\0'.repeat(9_000)}`))],
  ] as [string, (socket: Socket) => void][])('gives up on one that %s', async (_what, greet) => {
    const channel = await channelTo(rawServer(greet), { connectMs: 500 });
    await expect(ping(channel)).rejects.toMatchObject(unreachable());
  });

  it('gives up on one where nobody listens', async () => {
    const server = rawServer(() => {});
    const channel = await channelTo(server);
    await new Promise((resolve) => servers.pop()!.close(resolve));
    await expect(ping(channel)).rejects.toMatchObject(unreachable(/cannot be reached/));
  });

  it.each([
    ['starts a shell that says nothing', () => {}, /did not run a script in time/],
    ['cuts the line', (_channel, connection) => connection.end(), /closed the connection|broke off/],
    ['has no shell', (channel) => end(channel, 'This account is closed.\n', 1), /runs no script.*closed/s],
    ['prints another mark', (channel) => end(channel, 'longhaul-x 7\n', 0), /runs no script/],
    ['greets without end', (channel) => flood(channel, Buffer.alloc(32_768, 0x78)), /nonsense/],
  ] as [string, (channel: ServerChannel, connection: Connection) => void, RegExp][])(
    'gives up on one that %s',
    async (what, shell, message) => {
      const channel = await channelTo(sshServer(shell), /nothing/.test(what) ? { answerMs: 300 } : {});
      await expect(ping(channel)).rejects.toMatchObject(unreachable(message));
    },
  );

  it.each(['1', '-5', '1; reboot', '99999999999'])('takes no pid from it that is none: %s', async (pid) => {
    const server = sshServer((channel) => withMark(channel, (mark) => end(channel, `${mark} ${pid}\n`, 0)));
    await expect(ping(await channelTo(server))).rejects.toMatchObject(unreachable(/nonsense/));
  });

  it('keeps no more of an output without end than its bound, and kills the program', async () => {
    const scripts: string[] = [];
    let sent = 0;
    const server = sshServer((channel) => {
      channel.once('data', (input: Buffer) => {
        scripts.push(input.toString());
        if (scripts.length > 1) return end(channel, '', 0);
        channel.write(`${/longhaul-[0-9a-f-]{36}/.exec(scripts[0]!)![0]} 4711\n`);
        flood(channel, Buffer.alloc(32_768), (bytes) => (sent += bytes));
      });
    });
    const channel = await channelTo(server);
    const run = channel.session((guest) => guest.run({ path: 'yes' }, 10_000));
    await expect(run).rejects.toMatchObject(unreachable(/printed more than 1048576 bytes/));
    expect(scripts[1]).toBe('kill -9 4711');
    // What SSH's window lets through, and what the server holds back itself.
    expect(sent).toBeLessThan(16 * 1024 * 1024);
  });

  it('is cut off in the middle of a program, and logs in anew for the next session', async () => {
    let times = 0;
    const server = sshServer((channel, connection) =>
      withMark(channel, (mark) => {
        channel.write(`${mark} 4711\n`);
        if (times++ === 0) connection.end();
        else end(channel, '', 0);
      }),
    );
    const channel = await channelTo(server);
    await expect(ping(channel)).rejects.toMatchObject(unreachable());
    await ping(channel);
  });
});

describe('keys', () => {
  it('are pinned by fingerprint or whole', () => {
    const { type } = utils.parseKey(hostKey.public) as { type: string };
    expect(parseHostKey(hostKey.public)).toEqual({ fingerprint, algorithms: [type] });
    expect(parseHostKey(fingerprint).fingerprint).toBe(fingerprint);
    expect(parseHostKey(fingerprint).algorithms).not.toContain('ssh-rsa');
  });

  it.each([
    '',
    'SHA256:',
    'MD5:aa',
    'ssh-ed25519',
    'ssh-ed25519 AAAA',
    'ssh-dss AAAAB3NzaC1kc3M=',
    '__proto__ x',
  ])('refuses to pin %j', (text) => {
    expect(() => parseHostKey(text)).toThrow(/neither/);
  });

  it('are refused when they cannot be used', () => {
    checkPrivateKey(userKey.private);
    expect(() => checkPrivateKey(userKey.public)).toThrow(/public key/);
    expect(() => checkPrivateKey('nonsense')).toThrow(/no private key/);
    const locked = makeSshKey({
      passphrase: 'x',
      cipher: 'aes256-ctr',
      rounds: 16,
    });
    expect(() => checkPrivateKey(locked.private)).toThrow(/no passphrase/);
  });
});

function end(channel: ServerChannel, text: string, code: number): void {
  channel.write(text);
  channel.exit(code);
  channel.end();
}

/** Writes until the other side goes away; `note` hears how much was handed over. */
function flood(stream: Writable, chunk: Buffer, note: (bytes: number) => void = () => {}): void {
  const more = () => {
    while (!stream.destroyed && stream.writable) {
      note(chunk.length);
      if (!stream.write(chunk)) break;
    }
  };
  stream.on('drain', more);
  more();
}
