import { execFile, execFileSync, spawn, spawnSync } from 'node:child_process';
import { access, constants } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

const execute = promisify(execFile);

/** The words that make `command` run as `user`, without a way to gain rights; as whoever we are when there is no user. */
export function asUser(user: string | undefined, command: string[]): string[] {
  if (!user) return command;
  return [
    'setpriv',
    `--reuid=${user}`,
    `--regid=${user}`,
    '--init-groups',
    '--no-new-privs',
    '--',
    ...command,
  ];
}

/** Where a program is that can be run by its name. Rejects when it is nowhere. */
export async function findProgram(name: string): Promise<string> {
  const folders = (process.env.PATH ?? '').split(delimiter).filter(Boolean);
  const paths = folders.map((folder) => join(folder, name));
  return Promise.any(paths.map((path) => access(path, constants.X_OK).then(() => path)));
}

/** Runs a program to its end and returns its standard output (at most 1 MiB). Anything but exit code 0 throws. */
export async function run(command: string[], timeoutMs = 30_000): Promise<string> {
  const [file, ...args] = command;
  const { stdout } = await execute(file!, args, { timeout: timeoutMs, killSignal: 'SIGKILL', cwd: '/' });
  return stdout;
}

/** As `run`, for long programs: hands over every line of standard output as it comes. Errors carry the end of stderr. */
export async function runWithProgress(command: string[], onLine: (line: string) => void): Promise<void> {
  const [file, ...args] = command;
  const child = spawn(file!, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  let errors = '';
  child.stderr.on('data', (chunk: Buffer) => (errors = (errors + chunk.toString()).slice(-4096)));
  createInterface(child.stdout).on('line', onLine);
  const code = await new Promise((resolve, reject) => child.on('error', reject).on('close', resolve));
  if (code !== 0) throw new Error(`${file} ended with ${code}: ${errors.trim()}`);
}

/** A directory for one VM, closed to others, owned by the user that QEMU runs as. */
export async function makeOwnedDirectory(path: string, user: string | undefined): Promise<void> {
  const owner = user ? [`--owner=${user}`, `--group=${user}`] : [];
  await run(['install', '-d', '-m', '0700', ...owner, path]);
}

/** Makes the user that PostgreSQL and QEMU run as, with access to KVM, unless it is there. Needs root. */
export function ensureSystemUser(user: string): void {
  const isThere = (database: string, name: string) =>
    spawnSync('getent', [database, name], { stdio: 'ignore' }).status === 0;
  if (isThere('passwd', user)) return;
  const settings = ['--system', '--user-group', '--no-create-home', '--home-dir', '/nonexistent'];
  const groups = isThere('group', 'kvm') ? ['--groups', 'kvm'] : [];
  execFileSync('useradd', [...settings, ...groups, '--shell', '/usr/sbin/nologin', user]);
}

/** Asks until `look` gives something other than undefined; undefined when `timeoutMs` went by first. */
export async function poll<T>(
  look: () => Promise<T | undefined>,
  timeoutMs: number,
  everyMs = 50,
): Promise<T | undefined> {
  const giveUpAt = performance.now() + timeoutMs;
  for (;;) {
    const seen = await look();
    if (seen !== undefined || performance.now() >= giveUpAt) return seen;
    await sleep(everyMs);
  }
}
