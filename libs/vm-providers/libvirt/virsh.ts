import { execFile } from 'node:child_process';
import { AppError } from '@longhaul/errors';
import { asUser } from '../qemu/programs.js';

/** An answer of the agent to a read of 1 MiB is 1.4 MB; libvirt itself cuts at 4 MiB. */
const MAX_OUTPUT = 4 * 1024 * 1024;

/** libvirt knows no such domain. */
export class NoDomain extends Error {}
/** libvirt understood and refused, or failed. The message is its own. */
export class VirshRefusal extends Error {}

export interface RunOptions {
  /** Milliseconds. Default 30 s. */
  timeoutMs?: number;
  signal?: AbortSignal;
}

/** libvirt through its own client, a process for each call: no shell, and nothing of libvirt in ours. */
export class Virsh {
  constructor(
    private readonly uri: string,
    private readonly user: string | undefined,
  ) {}

  /** Standard output. Errors: NoDomain, VirshRefusal; `unavailable` when libvirt does not answer in time or at all. */
  run(args: string[], { timeoutMs = 30_000, signal }: RunOptions = {}): Promise<string> {
    const command = asUser(this.user, ['virsh', '--quiet', '--connect', this.uri, ...args]);
    const options = {
      timeout: timeoutMs,
      killSignal: 'SIGKILL' as const,
      maxBuffer: MAX_OUTPUT,
      cwd: '/',
      // Errors are told apart by their text.
      env: { ...process.env, LC_ALL: 'C' },
      signal,
    };
    return new Promise((resolve, reject) => {
      execFile(command[0]!, command.slice(1), options, (error, stdout, stderr) =>
        error ? reject(this.failure(error, stderr)) : resolve(stdout),
      ).stdin?.end();
    });
  }

  private failure(error: Error & { code?: unknown; killed?: boolean }, stderr: string): Error {
    const said = stderr
      .replace(/^error: /gm, '')
      .trim()
      .slice(0, 1000);
    if (/failed to get domain|Domain not found|no domain with matching/.test(said)) return new NoDomain(said);
    if (typeof error.code === 'number' && !/failed to connect to the hypervisor/.test(said))
      return new VirshRefusal(said);
    const reason = error.code === 'ENOENT' ? 'virsh is not installed' : said || 'no answer in time';
    return new AppError('unavailable', 'libvirt does not answer.', undefined, { cause: new Error(reason) });
  }
}
