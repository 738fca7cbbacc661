import type { GuestProgram } from '../channel.js';
import { quote } from '../scripts.js';

/**
 * The line for the user's shell, which may be of any make, so it holds nothing but plain quotes. The script comes on the
 * input, before what the program reads: a line is limited to 128 KiB and shown to every user of the machine.
 */
export const bootstrap = (isRoot: boolean, scriptBytes: number) =>
  `exec ${isRoot ? '' : 'sudo -n '}sh -c 'eval "$(dd bs=${scriptBytes} count=1 iflag=fullblock 2>/dev/null)"'`;

/**
 * What comes before a script: the mark, behind whatever the user's shell prints when it starts, and the process id, which
 * is also that of the program that takes the shell's place.
 */
export const announce = (mark: string) => `
PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin
announce() { echo "${mark} $1"; }
`;

export const withArguments = (script: string, args: string[]) =>
  `announce $$\nset -- ${args.map(quote).join(' ')}\n${script}`;

export const programScript = (program: GuestProgram) =>
  `${findProgram(program)}announce $$\nexec ${words(program)}\n`;

/**
 * setsid twice: the second one is the leader of a session for certain, so that it forks, and the program depends on nobody.
 * Not in the background, where sh makes programs ignore SIGINT for ever.
 */
export const spawnScript = (program: GuestProgram) => `${findProgram(program)}
exec 3</dev/null
${program.stdin ? SPOOL : ''}
mark=$(announce)
exec setsid setsid sh -c 'echo "$0$$"; exec <&3 3<&- >/dev/null 2>&1; exec "$@"' "$mark" ${words(program)}
`;

/** The input would be lost with the connection. */
const SPOOL = 'file=$(mktemp) && cat >"$file" && exec 3<"$file" && rm "$file" || exit 1';

const findProgram = ({ path }: GuestProgram) =>
  `command -v ${quote(path)} >/dev/null 2>&1 || { announce missing; exit; }\n`;

function words({ path, args = [], env }: GuestProgram): string {
  const variables = env && ['env', '-i', ...Object.entries(env).map(([name, value]) => `${name}=${value}`)];
  return [...(variables ?? []), path, ...args].map(quote).join(' ');
}

/** Arguments: path, offset, bytes. */
export const READ_FILE = `
LC_ALL=C
export LC_ALL
[ -e "$1" ] || exit 66
exec dd if="$1" bs=65536 iflag=skip_bytes,count_bytes,fullblock skip="$2" count="$3"
`;

/** Argument: path. */
export const WRITE_FILE = `
LC_ALL=C
export LC_ALL
exec cat >"$1"
`;

/** Argument: seconds since 1970. Busybox knows no parts of a second. */
export const SET_TIME = 'date -u -s "@$1" >/dev/null 2>&1 || exec date -u -s "@${1%.*}" >/dev/null';
