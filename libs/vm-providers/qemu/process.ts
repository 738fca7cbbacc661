import { spawn } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { AppError } from '@longhaul/errors';
import { firstAgentSocket, machineArguments, type Machine } from './machine.js';
import { asUser, poll, run } from './programs.js';
import { NoProcess, withQmp } from './qmp.js';
import { exists, type VmFiles } from './vm-files.js';

const LOCKED = 75;

/** `run-state` of QEMU: running, paused, inmigrate, postmigrate, shutdown, internal-error … */
export type RunState = string;

export interface LaunchOptions {
  user: string | undefined;
  /** Wait for a memory image (see resumeMemory) instead of booting. */
  incoming: boolean;
  /** Words before the command, as those of BridgeOptions. */
  within?: string[];
  /** Dies with this process, instead of outliving it. */
  attached?: boolean;
}

/**
 * Starts the QEMU process of a VM, unless there is one: the process itself holds a lock, under which the traces of the
 * last one are removed. Resolves when its sockets listen. The process outlives us unless `attached`.
 */
export async function launch(files: VmFiles, machine: Machine, options: LaunchOptions): Promise<void> {
  const qemu = machineArguments(files, machine);
  if (options.incoming) qemu.push('-incoming', 'defer');
  // Nothing runs before it is told to, so that whoever repeats a call can tell what was done already.
  qemu.push('-S');
  if (!options.attached) qemu.push('-daemonize');
  const [agent, firstAgent, running] = [files.agent, firstAgentSocket(files), files.running];
  const prepare = 'rm -f "$1"-*.sock && ln -sfn "$3" "$2" && touch "$4" && shift 4 && exec "$@"';
  const script = ['sh', '-c', prepare, 'sh', `${files.directory}/agent`, agent, firstAgent, running, ...qemu];
  const locked = ['flock', '--no-fork', '--wait', '1', '-E', `${LOCKED}`, files.processLock, ...script];
  if (!options.attached) return launchDetached([...(options.within ?? []), ...asUser(options.user, locked)]);
  // Inside the change of user, which clears the signal.
  await launchAttached(files, asUser(options.user, ['setpriv', '--pdeathsig', 'KILL', '--', ...locked]));
}

async function launchDetached(command: string[]): Promise<void> {
  await run(command).catch((error: { code?: unknown; stderr?: string }) => {
    // Somebody else launched it a moment ago: as good as our own.
    if (error.code === LOCKED) return;
    throw new Error(`QEMU did not start: ${error.stderr?.trim() ?? error}`, { cause: error });
  });
}

async function launchAttached(files: VmFiles, command: string[]): Promise<void> {
  const child = spawn(command[0]!, command.slice(1), { stdio: ['ignore', 'ignore', 'pipe'], cwd: '/' });
  let errors = '';
  child.stderr.on('data', (chunk: Buffer) => (errors = (errors + chunk.toString()).slice(-4096)));
  const ended = new Promise<never>((_resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => reject(new Error(`QEMU ended with ${code}: ${errors.trim()}`)));
  });
  const listening = poll(() => exists(files.qmp[1]).then((yes) => yes || undefined), 10_000);
  // Its end, later on, is nobody's error.
  ended.catch(() => {});
  if (!(await Promise.race([ended, listening]))) throw new Error('QEMU does not listen on its sockets');
}

/**
 * The state of a VM's process, or undefined when there is none. A process that is just starting, or ending, is waited for.
 * Errors: `unavailable` for one that does not answer.
 */
export async function runState(files: VmFiles): Promise<RunState | undefined> {
  const state = await poll(async () => {
    try {
      return await withQmp(
        files,
        async (qmp) => (await qmp.execute<{ status: string }>('query-status')).status,
      );
    } catch (error) {
      if (!(error instanceof NoProcess)) throw error;
      return (await isProcessLocked(files)) ? undefined : 'none';
    }
  }, 5_000);
  if (state === undefined)
    throw new AppError('unavailable', `The process of VM ${files.id} does not listen.`);
  return state === 'none' ? undefined : state;
}

async function isProcessLocked(files: VmFiles): Promise<boolean> {
  if (!(await exists(files.processLock))) return false;
  // Shared, so that two who look do not see each other.
  const look = run(['flock', '--shared', '--nonblock', '-E', `${LOCKED}`, files.processLock, 'true']);
  return look.then(
    () => false,
    (error: { code?: unknown }) => error.code === LOCKED,
  );
}

/** Ends the process of a VM, if need be by a signal. Resolves when it is gone and the disk is free. */
export async function terminate(files: VmFiles): Promise<void> {
  await withQmp(files, (qmp) => qmp.execute('quit'), { waitMs: 3_000 }).catch(() => {
    // Already gone, or deaf: the rest finds out which.
  });
  const isGone = async () => ((await isProcessLocked(files)) ? undefined : true);
  if (await poll(isGone, 3_000)) return;
  for (const pid of await processesOf(files.id)) process.kill(pid, 'SIGKILL');
  if (!(await poll(isGone, 10_000))) {
    throw new AppError('unavailable', `The process of VM ${files.id} does not end.`);
  }
}

/** By the uuid on their command line, as a pid from a file may be another process's by now. */
async function processesOf(id: string): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const found = await Promise.all(
    pids.map(async (pid) => {
      const words = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0');
      return words[0]?.startsWith('qemu-system') && words[words.indexOf('-uuid') + 1] === id
        ? Number(pid)
        : 0;
    }),
  );
  return found.filter((pid) => pid > 0);
}

/** Moves the agent's device to a new socket, which cuts off whoever is stuck on the present one. */
export async function swapAgentSocket(files: VmFiles): Promise<void> {
  const path = `${files.directory}/agent-${Math.random().toString(16).slice(2, 10).padEnd(8, '0')}.sock`;
  await withQmp(files, async (qmp) => {
    const addr = { type: 'unix', data: { path } };
    const backend = { type: 'socket', data: { addr, server: true, wait: false } };
    await qmp.execute('chardev-change', { id: 'agent', backend });
  });
  await run(['ln', '-sfnT', path, `${files.agent}.new`]);
  await run(['mv', '-fT', `${files.agent}.new`, files.agent]);
}
