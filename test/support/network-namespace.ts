import { execFileSync, spawnSync } from 'node:child_process';

/** Makes a network namespace; false where that, or nftables in it, cannot be had. */
export const makeNamespace = (space: string): boolean =>
  process.getuid?.() === 0 &&
  spawnSync('sh', [
    '-c',
    'command -v nft && ip netns add "$1" && ip netns exec "$1" nft add table bridge x',
    'sh',
    space,
  ]).status === 0;

/** What a program says that runs in a namespace. */
export const inside = (space: string, ...words: string[]) =>
  execFileSync('ip', ['netns', 'exec', space, ...words], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  });

export const ip = (space: string, text: string) => execFileSync('ip', ['-n', space, ...text.split(' ')]);

/** Whether a namespace reaches an address. Nobody listens there: whoever is reached refuses. */
export const reaches = (space: string, address: string) =>
  inside(
    space,
    process.execPath,
    '-e',
    `const socket = require('net').connect(9, '${address}');
    const end = (text) => (console.log(text), process.exit());
    socket.on('error', ({ code }) => end(code === 'ECONNREFUSED'));
    setTimeout(end, 3000, false)`,
  ).trim() === 'true';

/** How many UDP datagrams have come to ports at which nobody listens. */
export const datagrams = (space: string) =>
  Number(/^Udp: \d+ (\d+)/m.exec(inside(space, 'cat', '/proc/net/snmp'))?.[1]);
