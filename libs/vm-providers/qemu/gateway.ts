import { quote } from '@longhaul/guest';
import type { VmFiles } from './vm-files.js';

/** Where guests find the gateway, on port 80. */
const GATEWAY_ADDRESS = '10.0.2.100';
export const GATEWAY_URL = `http://${GATEWAY_ADDRESS}`;

/** At once, of one VM; more are closed. The guest's root decides how often it connects, and each is a process of the host. */
const MAX_CONNECTIONS = 16;

/**
 * The part of `-netdev user` that lets a guest reach one server and nothing else: for each connection QEMU starts a relay.
 * Its other form, `-tcp:host:port`, mixes up connections that are open at the same time. QEMU's sandbox allows child
 * processes, which saving memory needs too; they inherit its filter of system calls and the rights of QEMU's user.
 * `server` is an http or https URL, without path.
 */
export function gatewayForward(files: VmFiles, server: string): string {
  const relay = `for n in $(seq ${MAX_CONNECTIONS}); do
    exec 9>"$0-$n"; if flock -n 9; then exec socat -t 60 -T 300 STDIO "$1"; fi
  done`;
  const words = [
    'sh',
    '-c',
    relay.replaceAll(/\s+/g, ' '),
    `${files.directory}/gateway`,
    socatAddress(server),
  ];
  const command = words.map(quote).join(' ');
  return `guestfwd=tcp:${GATEWAY_ADDRESS}:80-cmd:${command.replaceAll(',', ',,')}`;
}

/** Throws for what is no such URL. */
export function socatAddress(server: string): string {
  const { protocol, hostname, port, pathname, search, username, hash } = new URL(server);
  const rest = `${search}${username}${hash}${pathname === '/' ? '' : pathname}`;
  if (!['http:', 'https:'].includes(protocol) || rest)
    throw new Error(`The guests' gateway must be an http or https URL without path: ${server}`);
  if (protocol === 'http:') return `TCP:${hostname}:${port || 80},connect-timeout=10`;
  // On the way to this very host nobody can listen in, and certificates are not made out to its loopback address.
  const isHere = ['127.0.0.1', '[::1]', 'localhost'].includes(hostname);
  return `OPENSSL:${hostname}:${port || 443},connect-timeout=10,verify=${isHere ? 0 : 1}`;
}
