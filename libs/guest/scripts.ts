/**
 * The POSIX sh programs that work inside the guest beside the supervisor (jobrun.ts), and what they share with it.
 * They need nothing there but sh, coreutils and setsid, of Debian's or busybox's make. A guest that has both runs the
 * supervisor by busybox: programs that are linked statically start five times as fast in an emulated VM.
 *
 * Files of a command:
 *   /run/longhaul/epoch                          which boot this is, as the worker named it
 *   /run/longhaul/busybox                        link to it, where the guest has one with all that supervisors need
 *   /run/longhaul/room                           what the last command has left of the disk, see jobrun.ts
 *   /run/longhaul/jobs/ID/                       mkdir of it is the claim. Gone after a reboot, as is the command
 *     supervisor                                 "PID STARTTIME ." of the process that waits for the end of the command
 *     group                                      the process group of the supervisor and its helpers
 *     command                                    pid of the command, which is the id of its session and group as well
 *     verdict                                    "exit 0", "timeout GRACE" or "cancel GRACE": what ended it, decided once
 *     stdout.count, stderr.count                 "WRITTEN DROPPED ." in bytes
 *     exit                                       the outcome; complete when it ends with " .":
 *                                                "refused REASON ." or "ended CODE VERDICT STDOUT-WRITTEN
 *                                                STDOUT-DROPPED STDERR-WRITTEN STDERR-DROPPED MILLISECONDS ."
 *   /var/lib/longhaul/jobs/ID/{stdout,stderr}    the output
 *   /sys/fs/cgroup/longhaul/ID                   the processes of the command, where control groups v2 are mounted
 */

export const EPOCH_FILE = '/run/longhaul/epoch';
export const BUSYBOX = '/run/longhaul/busybox';
export const controlFile = (id: string, name: string) => `/run/longhaul/jobs/${id}/${name}`;
export const outputFile = (id: string, stream: 'stdout' | 'stderr') =>
  `/var/lib/longhaul/jobs/${id}/${stream}`;

/** A word of a line of sh. */
export const quote = (word: string) => `'${word.replaceAll("'", `'\\''`)}'`;

/** Leaves the comments here: the text goes over a slow line with every command. */
export function script(text: string): string {
  return text.replace(/^\s*(#.*)?\n/gm, '').replace(/^ +/gm, '');
}

export const COMMON = `
umask 077

# locate ID
locate() {
  id=$1
  control=/run/longhaul/jobs/$id
  output=/var/lib/longhaul/jobs/$id
  cgroup=/sys/fs/cgroup/longhaul/$id
  [ -d /sys/fs/cgroup/longhaul ] && [ ! -e "$control/uncontained" ] || cgroup=
}

# same_epoch EPOCH
same_epoch() {
  read -r epoch </run/longhaul/epoch && [ "$epoch" = "$1" ]
}

# One mkdir for all three, as it is a fork. Only what it says about the first decides.
claim() {
  complaint=$(mkdir "$control" "$output" $cgroup 2>&1)
  case $complaint in *"$control"*) return 1 ;; esac
  [ -d "$control" ]
}

alive() {
  read -r supervisor since rest <"$control/supervisor" || return 1
  read -r stat <"/proc/$supervisor/stat" || return 1
  # The program's name, in parentheses, may hold anything.
  set -- \${stat##*) }
  [ "$1" != Z ] && [ "\${20}" = "$since" ]
}

# Pids of what is left of the command. Without a control group: whoever has its environment, whatever its session.
left() {
  if [ "$cgroup" ]; then
    while read -r pid; do echo "$pid"; done <"$cgroup/cgroup.procs"
    return
  fi
  for process in /proc/[0-9]*; do
    # read skips the NULs between the variables.
    while read -r variables || [ "$variables" ]; do
      case $variables in *"LONGHAUL_COMMAND_ID=$id"*) echo "\${process#/proc/}" && break ;; esac
    done <"$process/environ"
  done
}

# nap DIGITS: so many decimals of a second.
nap() { sleep "0.$1" || sleep 1; }

# Fails when something does not die, which hangs in the kernel then.
kill_all() {
  kills=0
  while pids=$(left) && [ "$pids" ]; do
    [ "$kills" -lt 100 ] || return 1
    kills=$((kills + 1))
    # All at once where the kernel can, so that no fork slips through; else again until nobody is left.
    { [ "$cgroup" ] && echo 1 >"$cgroup/cgroup.kill"; } || kill -KILL $pids
    nap 05
  done
}

# stop REASON GRACE: ends the command unless it ended before. The link decides once and for all which reason counts.
stop() {
  echo "$1 $2" >"$control/verdict.$1.$$"
  ln "$control/verdict.$1.$$" "$control/verdict"
  read -r verdict grace <"$control/verdict"
  case $verdict in timeout | cancel) ;; *) return ;; esac
  # The command writes this file and looks for a verdict afterwards: without it, it won't start.
  read -r leader <"$control/command" || return
  kill -TERM "-$leader" || kill -TERM "$leader"
  waits=0
  while [ "$waits" -lt $(($2 * 10)) ] && [ "$(left)" ]; do
    waits=$((waits + 1))
    nap 1
  done
  kill_all
}
`;

/** Arguments: id, epoch, seconds between TERM and KILL. */
export const CANCEL = script(`
${COMMON}
locate "$1"
same_epoch "$2" || exit 0
if claim; then
  echo "refused tombstone ." >"$control/exit"
  exit 0
fi
[ -e "$control/exit" ] || stop cancel "$3"
if [ ! -e "$control/supervisor" ] && [ ! -e "$control/exit" ]; then
  # Claimed by a supervisor that died at once, or one about to say who it is, which heeds the verdict then.
  nap 5
  [ -e "$control/supervisor" ] || echo "refused tombstone ." >"$control/exit"
fi
`);

/** Argument: id. Exit code 1 when something does not die. */
export const KILL_LEFTOVERS = script(`
${COMMON}
locate "$1"
[ -d "$control" ] || exit 0
[ -e "$control/exit" ] || stop cancel 0
kill_all || exit 1
# The helpers of a dead supervisor; a live one still has to write how the command ended.
alive || { read -r group <"$control/group" && kill -KILL "-$group"; }
exit 0
`);

/** Argument: the epoch. Makes the folders that all else needs. */
export const WRITE_EPOCH = script(`
umask 077
mkdir -p /run/longhaul/jobs /var/lib/longhaul/jobs || exit 1
[ ! -w /sys/fs/cgroup/cgroup.procs ] || mkdir -p /sys/fs/cgroup/longhaul/supervisors
IFS=:
for folder in \${PATH:-/usr/bin:/bin}; do
  busybox=$folder/busybox
  [ -x "$busybox" ] && "$busybox" stat -f -c %S / || continue
  [ "$("$busybox" --list | grep -cxE 'cat|dd|ln|mkdir|mkfifo|setsid|sh|sleep|stat|tee|wc')" = 11 ] || continue
  ln -sf "$busybox" ${BUSYBOX}
  break
done
echo "$1" >/run/longhaul/epoch.new && mv /run/longhaul/epoch.new /run/longhaul/epoch
`);

/** Arguments: how many to leave, the age in seconds from which to remove, then ids to keep in any case. */
export const COLLECT = script(`
${COMMON}
count=$1
touch -d "@$(($(date +%s) - $2))" /run/longhaul/oldest
shift 2
keep=" $* "
for id in $(ls -t /var/lib/longhaul/jobs); do
  case $keep in *" $id "*) continue ;; esac
  locate "$id"
  [ ! -e "$control/exit" ] && alive && continue
  count=$((count - 1))
  if [ "$count" -lt 0 ] || [ "$output" -ot /run/longhaul/oldest ]; then
    rm -rf "$control" "$output"
    # Stays while a daemon that the command started lives in it.
    [ -z "$cgroup" ] || rmdir "$cgroup"
  fi
done
exit 0
`);
