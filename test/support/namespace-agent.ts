import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AgentChannel } from '@longhaul/guest';
import { childrenOf } from './children.js';
import { eventually } from './eventually.js';

const PATH = '/usr/sbin:/usr/bin:/sbin:/bin';
const HAS_AGENT = PATH.split(':').some((folder) => existsSync(join(folder, 'qemu-ga')));
const IS_ROOT = process.getuid?.() === 0;
/** Systems with both versions of control groups keep version 2 in the second place. */
const CGROUPS = ['/sys/fs/cgroup', '/sys/fs/cgroup/unified'].find((path) =>
  existsSync(join(path, 'cgroup.procs')),
);
const UNSHARE = [
  '-m',
  '-p',
  '-f',
  '-u',
  '-i',
  '-n',
  '--mount-proc',
  '--kill-child',
  ...(IS_ROOT ? [] : ['-r']),
];
/** They would reach through to the host's kernel. */
const BLOCKED =
  'guest-set-time,guest-shutdown,guest-suspend-disk,guest-suspend-ram,guest-suspend-hybrid,guest-set-vcpus,' +
  'guest-set-memory-blocks,guest-set-user-password,guest-fsfreeze-freeze,guest-fsfreeze-freeze-list,guest-fstrim';

/** Process 1 of the "guest": like any init it adopts and buries orphans. */
const INIT = `
set -e
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/host /run/bin
mount --bind "$BASE" /run/host
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /var/lib
mkdir /var/lib/longhaul
if [ "$DISK_MB" ]; then
  mount -t tmpfs -o "size=\${DISK_MB}m" tmpfs /var/lib/longhaul
else
  mount --bind /run/host/state /var/lib/longhaul
fi
if [ "$CGROUP" ]; then
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
else
  mount -t tmpfs tmpfs /sys/fs/cgroup
fi
if [ "$BUSYBOX" ]; then
  busybox --install -s /run/bin
  PATH=/run/bin:$PATH
elif found=$(command -v busybox); then
  mount --bind /dev/null "$found"
fi
unset BASE DISK_MB CGROUP BUSYBOX
serve() {
  qemu-ga -m unix-listen -p /run/host/agent.sock -f /run/qemu-ga.pid -t /run -b ${BLOCKED} -l /run/host/agent.log
}
# As a service manager does. It ends in order when a client dies with an answer on the way, and a killed one leaves its pid file.
while serve || [ "$?" -gt 128 ]; do rm -f /run/qemu-ga.pid; done
`;

export interface NamespaceAgentOptions {
  /** With control groups of version 2. Needs root. */
  cgroups?: boolean;
  /** /var/lib/longhaul becomes a disk of this size, which a reboot empties. */
  diskMb?: number;
  /** With the shell and tools of busybox. */
  busybox?: boolean;
}

export interface NamespaceAgent {
  channel: AgentChannel;
  socketPath: string;
  /** The guest's /var/lib/longhaul as the host sees it (empty with `diskMb`). */
  stateDirectory: string;
  /** Process 1 of the guest, as the host sees it; its only other process while nothing runs is the agent. */
  pid(): number;
  /** Paths of what the agent has open, its own log, sockets and pipes as well; none while it starts anew. */
  openFiles(): string[];
  /** Of the agent itself. One that it ends is started again at once. */
  signal(signal: NodeJS.Signals): void;
  /** Everything dies; the new boot finds an empty /run and the same /var/lib/longhaul. */
  reboot(): Promise<void>;
  stop(): Promise<void>;
}

/** Why `startNamespaceAgent` cannot work on this machine, for the name of a skipped test; undefined when it can. */
export function namespaceAgentLacks({ cgroups, busybox }: NamespaceAgentOptions = {}): string | undefined {
  if (!HAS_AGENT) return 'the package qemu-guest-agent';
  if (cgroups && !(IS_ROOT && CGROUPS)) return 'root and cgroup v2';
  if (busybox && !PATH.split(':').some((folder) => existsSync(join(folder, 'busybox'))))
    return 'the package busybox';
  try {
    execFileSync('unshare', [...UNSHARE, 'mount', '-t', 'tmpfs', 'tmpfs', '/tmp'], { stdio: 'ignore' });
    return undefined;
  } catch {
    return 'root or user namespaces';
  }
}

/**
 * A real guest agent without a VM: the host's files in namespaces of their own, with a fresh /run, /tmp and /var/lib,
 * so that commands in there touch nothing of the host that matters. Resolves once the agent answers.
 */
export async function startNamespaceAgent(options: NamespaceAgentOptions = {}): Promise<NamespaceAgent> {
  const base = mkdtempSync(join(tmpdir(), 'longhaul-agent-'));
  const stateDirectory = join(base, 'state');
  mkdirSync(stateDirectory);
  const cgroup =
    options.cgroups && CGROUPS ? join(CGROUPS, `longhaul-test-${process.pid}-${Date.now()}`) : '';
  if (cgroup) mkdirSync(cgroup);
  const socketPath = join(base, 'agent.sock');
  const channel = new AgentChannel({ socketPath, lockDirectory: base });

  const boot = async () => {
    rmSync(socketPath, { force: true });
    const enter =
      '[ -z "$CGROUP" ] || echo $$ >"$CGROUP/cgroup.procs"; exec setpriv --pdeathsig KILL unshare "$@"';
    const unshare = [...UNSHARE, ...(cgroup ? ['-C'] : []), 'sh', '-c', INIT];
    const log = openSync(join(base, 'console.log'), 'a');
    const child = spawn('sh', ['-c', enter, 'sh', ...unshare], {
      stdio: ['ignore', 'ignore', log],
      env: {
        PATH,
        BASE: base,
        CGROUP: cgroup,
        DISK_MB: options.diskMb?.toString() ?? '',
        BUSYBOX: options.busybox ? 'yes' : '',
      },
    });
    closeSync(log);
    await eventually(
      () => child.exitCode !== null || channel.session(async (guest) => (await guest.ping(), true)),
    );
    if (child.exitCode !== null)
      throw new Error(`no agent: ${readFileSync(join(base, 'console.log'), 'utf8')}`);
    return child;
  };

  let running = await boot();
  return {
    channel,
    socketPath,
    stateDirectory,
    pid: () => initOf(running),
    openFiles: () => filesOf(agentOf(running)),
    signal: (signal) => {
      const agent = agentOf(running);
      if (agent) process.kill(agent, signal);
    },
    reboot: async () => {
      await kill(running);
      running = await boot();
    },
    stop: async () => {
      await kill(running);
      rmSync(base, { recursive: true });
      if (cgroup) execFileSync('find', [cgroup, '-depth', '-type', 'd', '-delete']);
    },
  };
}

/** Kills process 1 of the namespace. The kernel lets its parent see the end only when all others in there are dead. */
async function kill(unshare: ChildProcess): Promise<void> {
  const ended = once(unshare, 'exit');
  process.kill(initOf(unshare), 'SIGKILL');
  await ended;
}

const initOf = (unshare: ChildProcess) => childrenOf(unshare.pid!)[0]!;

const agentOf = (unshare: ChildProcess) =>
  childrenOf(initOf(unshare)).find((pid) => readFileSync(`/proc/${pid}/comm`, 'utf8') === 'qemu-ga\n');

function filesOf(pid: number | undefined): string[] {
  const files = `/proc/${pid}/fd`;
  if (!existsSync(files)) return [];
  return readdirSync(files).flatMap((file) => {
    try {
      return readlinkSync(join(files, file));
    } catch {
      return []; // Closed since it was listed.
    }
  });
}
