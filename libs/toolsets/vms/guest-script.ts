import { AppError, redactText, type ErrorCode } from '@longhaul/errors';
import type { GuestSession } from '@longhaul/guest';
import { traced } from '@longhaul/telemetry';

/** By what the tools of a guest say, the first that matches. */
const CAUSES: [RegExp, ErrorCode][] = [
  [/No space left/i, 'guest_out_of_space'],
  [/Read-only file system/i, 'guest_read_only'],
  [/not found|No such file/i, 'guest_missing_dependency'],
];
const TIMEOUT_MS = 30_000;

/**
 * Runs a script of sh in the guest, with `set -eu`; answers what it printed. Secrets go into `stdin`, never into `args`.
 * Errors: by its last words `guest_out_of_space`, `guest_read_only` or `guest_missing_dependency`, else `unavailable`.
 */
export async function runScript(
  session: GuestSession,
  script: string,
  { args = [], stdin = '' }: { args?: string[]; stdin?: string } = {},
): Promise<string> {
  const path = 'export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C';
  const program = { path: '/bin/sh', args: ['-euc', `${path}\n${script}`, 'longhaul', ...args] };
  const { exitCode, stdout, stderr } = await traced('guest run script', { kind: 'client' }, () =>
    session.run({ ...program, stdin: Buffer.from(stdin) }, TIMEOUT_MS),
  );
  if (exitCode === 0) return stdout.toString();
  const said = redactText(stderr.toString().trim().slice(-500));
  const [, code] = CAUSES.find(([pattern]) => pattern.test(said)) ?? [undefined, 'unavailable' as const];
  throw new AppError(code, `The guest could not be changed (exit code ${exitCode}): ${said}`);
}
