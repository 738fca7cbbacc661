import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SshChannel, type SshTarget } from '@longhaul/guest';
import { freePort } from '@longhaul/persistence/embedded';
import { eventually } from './eventually.js';
import { makeSshKey } from './ssh-key.js';

const IMAGES = process.env.TEST_IMAGES ?? '/var/lib/longhaul/images';
const UNSHARE = ['-m', '-p', '-f', '-u', '-i', '--kill-child'];
/** They would reach through to the host's kernel. */
const DROPPED = '-sys_time,-sys_boot,-sys_module,-mknod,-net_admin,-sys_ptrace';

/** Process 1 of the "guest": like any init it adopts and buries orphans. */
const INIT = `
set -e
mount --bind "$ROOT" "$ROOT"
mount -t proc proc "$ROOT/proc"
mount --rbind /dev "$ROOT/dev"
mount --bind /sys "$ROOT/sys"
mount -o remount,bind,ro "$ROOT/sys"
mount -t tmpfs -o mode=755 tmpfs "$ROOT/run"
mount -t tmpfs tmpfs "$ROOT/tmp"
mkdir "$ROOT/run/sshd"
unset ROOT
exec setpriv --bounding-set ${DROPPED} chroot "$0" sh -c '/usr/sbin/sshd -D -e "$@"; exit' init "$@"
`;

/** Becomes root as sudo does, for one user and without asking: the image has no sudo. */
const SUDO = `#!/bin/sh
[ "$1" = -n ] || exit 1
shift
exec /usr/libexec/become-root --reuid=0 --regid=0 --clear-groups "$@"
`;

export interface NamespaceSshd {
  /** As root, with a key. */
  target: SshTarget & { privateKey: string };
  /** As somebody else, who may use sudo. */
  operator: SshTarget;
  channel: SshChannel;
  /** Of whoever asks for it; not closed by `stop`. */
  open(target: SshTarget): SshChannel;
  /** The files of the "guest". */
  root: string;
  /** Cuts all connections, as a failing line does. */
  cut(): Promise<void>;
  /** Everything dies; the new boot finds an empty /run and the same /var/lib. */
  reboot(): Promise<void>;
  stop(): Promise<void>;
}

/** Why `startNamespaceSshd` cannot work on this machine, for the name of a skipped test; undefined when it can. */
export function namespaceSshdLacks(): string | undefined {
  if (process.getuid?.() !== 0) return 'root';
  if (!findImage()) return 'the guest image';
  return undefined;
}

/** A real OpenSSH server of the guest image, without a VM: the image's files in namespaces of their own. */
export async function startNamespaceSshd(): Promise<NamespaceSshd> {
  const base = mkdtempSync(join(tmpdir(), 'longhaul-sshd-'));
  const root = join(base, 'root');
  unpack(findImage()!, base, root);
  const [hostKey, userKey] = [makeSshKey(), makeSshKey()];
  addUsers(root, hostKey.private, userKey.public);

  const port = await freePort();
  const target = { host: '127.0.0.1', port, user: 'root', hostKey: hostKey.public };
  const open = (to: SshTarget) => new SshChannel({ ...to, lockDirectory: base });
  const channel = open({ ...target, privateKey: userKey.private });
  const boot = async () => {
    const log = openSync(join(base, 'sshd.log'), 'a');
    const options = [
      `-oPort=${port}`,
      '-oListenAddress=127.0.0.1',
      '-oHostKey=/etc/ssh/host',
      '-oPidFile=none',
      // Where a test that hides /root does not hide it.
      '-oAuthorizedKeysFile=/etc/ssh/keys.%u',
    ];
    const init = ['unshare', ...UNSHARE, 'sh', '-c', INIT, root, ...options];
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', ...init], {
      stdio: ['ignore', log, log],
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', ROOT: root },
    });
    closeSync(log);
    await eventually(
      () => child.exitCode !== null || channel.session(async (guest) => (await guest.ping(), true)),
    );
    if (child.exitCode !== null) throw new Error(`no sshd: ${readFileSync(join(base, 'sshd.log'), 'utf8')}`);
    return child;
  };

  let running = await boot();
  return {
    target: { ...target, privateKey: userKey.private },
    operator: { ...target, user: 'ops', password: 'let me in' },
    channel,
    open,
    root,
    cut: async () => {
      for (const pid of connectionsOf(running)) process.kill(pid, 'SIGKILL');
    },
    reboot: async () => {
      await kill(running);
      running = await boot();
    },
    stop: async () => {
      channel.close();
      await kill(running);
      rmSync(base, { recursive: true });
    },
  };
}

/** The same, but `channel` is that of somebody who may use sudo. */
export async function startNamespaceSshdForOperator(): Promise<NamespaceSshd> {
  const sshd = await startNamespaceSshd();
  const channel = sshd.open(sshd.operator);
  const stop = async () => {
    channel.close();
    await sshd.stop();
  };
  return { ...sshd, channel, stop };
}

/** Of the built images, one with an OpenSSH server. */
function findImage(): string | undefined {
  const folders = existsSync(IMAGES) ? readdirSync(IMAGES).map((name) => join(IMAGES, name)) : [];
  const isFit = (folder: string) =>
    existsSync(join(folder, 'root.qcow2')) &&
    /^openssh-server /m.test(readFileSync(join(folder, 'packages.txt'), 'utf8'));
  return folders.find(isFit);
}

function unpack(image: string, base: string, root: string): void {
  const raw = join(base, 'root.raw');
  execFileSync('qemu-img', ['convert', '-O', 'raw', join(image, 'root.qcow2'), raw]);
  mkdirSync(root);
  // Complains of what it cannot restore; what matters shows when sshd starts.
  execFileSync('debugfs', ['-R', `rdump / ${root}`, raw], { stdio: 'ignore', env: sbinPath() });
  rmSync(raw);
}

function addUsers(root: string, hostKey: string, authorized: string): void {
  const write = (path: string, text: string, mode: number) => writeFileSync(join(root, path), text, { mode });
  const inside = (script: string) =>
    execFileSync('chroot', [root, 'sh', '-ec', script], {
      env: sbinPath(),
      stdio: ['ignore', 'ignore', 'inherit'],
    });
  write('etc/ssh/host', hostKey, 0o600);
  inside(`
    useradd --create-home --shell /bin/bash ops && echo 'ops:let me in' | chpasswd
    install -m 4750 -g ops /usr/bin/setpriv /usr/libexec/become-root
    echo 'echo a greeting that nobody asked for' >/home/ops/.bashrc
  `);
  write('etc/ssh/keys.root', `${authorized}\n`, 0o600);
  write('usr/bin/sudo', SUDO, 0o755);
}

const sbinPath = () => ({ ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` });

const childrenOf = (pid: number) =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number);

/** Those below the sshd that listens serve one connection each. */
function connectionsOf(unshare: ChildProcess): number[] {
  const isSshd = (pid: number) => readFileSync(`/proc/${pid}/comm`, 'utf8') === 'sshd\n';
  const [init] = childrenOf(unshare.pid!);
  return childrenOf(init!).filter(isSshd).flatMap(childrenOf);
}

/** Kills process 1 of the namespace. The kernel lets its parent see the end only when all others in there are dead. */
async function kill(unshare: ChildProcess): Promise<void> {
  const ended = once(unshare, 'exit');
  const [init] = childrenOf(unshare.pid!);
  process.kill(init!, 'SIGKILL');
  await ended;
}
