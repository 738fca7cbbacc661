import { COMMON, script } from './scripts.js';

/**
 * The supervisor: a POSIX sh program that runs one command in the guest and writes down how it ended, whether or not
 * a worker is there. The files it uses are listed in scripts.ts. A fork costs 20–40 ms in an emulated VM, so built-ins
 * do whatever they can.
 *
 * Arguments: id, epoch, time-out in seconds, limit of each stream in bytes, working directory or '', command.
 */
export const SUPERVISE = script(`
${COMMON}
locate "$1"
timeout=$3 limit=$4 directory=$5 command=$6
same_epoch "$2" && claim || exit 0

read -r stat <"/proc/$$/stat"
set -- \${stat##*) }
echo "$$ \${20} ." >"$control/supervisor"

# When memory is short, the command dies rather than the one who knows about it.
echo -900 >/proc/self/oom_score_adj
# A service manager that restarts the agent kills what is in the agent's control group.
read -r home </proc/self/cgroup
[ "$home" = 0::/ ] || echo 0 >/sys/fs/cgroup/longhaul/supervisors/cgroup.procs

refuse() {
  echo "refused $1 ." >"$control/exit"
  exit 0
}

# Into clock: hundredths of a second since boot.
look_at_clock() {
  read -r clock rest </proc/uptime
  clock=\${clock%.*}\${clock#*.}
}

# Into room: bytes that output may still take. A tenth of the disk, at most 200 MB, is left to others. Into step: how
# many to take before the next look. As others take some meanwhile, it is that little of what is left to them.
measure_room() {
  set -- $(stat -f -c '%a %b %S' "$output")
  step=$(($2 / 10 * $3))
  [ "$step" -lt 200000000 ] || step=200000000
  room=$(($1 * $3 - step))
  step=$((step / 4))
}

# pump STREAM: from the pipe at 3 into the file, up to the limit. The rest is counted, so that the command never blocks.
pump() {
  stream=$1 written=0 dropped=0 measured=0
  exec >"$output/$stream"
  while :; do
    bytes=$((limit - written)) block=65536
    [ "$bytes" -le "$step" ] || bytes=$step
    [ "$bytes" -gt 0 ] && [ "$room" -gt 0 ] || break
    [ "$bytes" -ge "$block" ] || block=$bytes
    reads=$((bytes / block))
    # Does at most so many reads, short ones too, and passes on each as it comes.
    LC_ALL=C dd bs="$block" count="$reads" <&3 2>"$control/$stream.dd" &
    echo "$!" >"$control/$stream.pid"
    wait "$!"
    status=$? before=$written done=$reads written=
    while read -r number word rest; do
      case "$word $rest" in
        'records in')
          done=$(($number))
          [ "$done" -gt 0 ] || written=$before
          ;;
        byte*) written=$((before + number)) ;;
      esac
    done <"$control/$stream.dd"
    # No such line from busybox, nor when it was killed: by the command, as in "pkill dd", or because it is time to leave.
    [ "$written" ] && [ "$status" = 0 ] || written=$(stat -c %s "$output/$stream")
    { [ "$status" = 0 ] || [ "$status" -gt 128 ]; } && [ ! -e "$control/leaving" ] || break
    if [ "$status" = 0 ] && [ "$done" -lt "$reads" ]; then
      echo "$written 0 ." >"$control/$stream.count"
      return
    fi
    # Not for every dd: a chatty command ends them by small reads.
    [ $((written - measured)) -lt 1000000 ] || { measure_room; measured=$written; }
  done
  if [ ! -e "$control/leaving" ]; then
    wc -c <&3 >"$control/$stream.rest" &
    echo "$!" >"$control/$stream.pid"
    # Unknown, but not nothing, when it is time to leave before the end.
    wait "$!" && read -r dropped <"$control/$stream.rest" || dropped=1
  fi
  # A daemon that the command left behind may go on to write, and must not die of it.
  cat <&3 >/dev/null &
  echo "$written $dropped ." >"$control/$stream.count"
}

# Into written and dropped. A pump that was killed left no count.
read_count() {
  read -r written dropped rest <"$control/$1.count" || { written=$(stat -c %s "$output/$1") dropped=0; }
}

[ -z "$directory" ] || { [ -d "$directory" ] && [ -x "$directory" ]; } || refuse bad_working_directory
measure_room
[ "$room" -gt 0 ] && mkfifo "$control/stdout.pipe" "$control/stderr.pipe" || refuse no_space
true >"$output/stdout" && true >"$output/stderr" || refuse no_space
# A cancel that came in between.
[ ! -e "$control/verdict" ] || refuse tombstone

look_at_clock
begun=$clock
# The first in the background, so that $! is empty until there is a sleep to kill.
(
  trap 'kill "$!"; exit' TERM
  # Again when something killed the sleep before its time, as in "pkill sleep".
  while look_at_clock; [ "$clock" -lt $((begun + timeout * 100)) ]; do
    sleep $((timeout - (clock - begun) / 100)) &
    wait "$!"
  done
  locate "$id"
  stop timeout 5
) &
timer=$!
pump stdout 3<"$control/stdout.pipe" &
pumps=$!
pump stderr 3<"$control/stderr.pipe" &
pumps="$pumps $!"

# In the foreground: sh lets what is in the background ignore SIGINT for ever.
(
  [ -z "$cgroup" ] || echo 0 >"$cgroup/cgroup.procs" || echo >"$control/uncontained"
  echo 0 >/proc/self/oom_score_adj
  umask 022
  export LONGHAUL_COMMAND_ID="$id" HOME="\${HOME:-/root}" USER="\${USER:-root}" LOGNAME="\${LOGNAME:-root}"
  export SHELL=/bin/sh LANG="\${LANG:-C.UTF-8}" PATH="\${PATH:-/usr/sbin:/usr/bin:/sbin:/bin}"
  if [ "$directory" ]; then cd -- "$directory" || exit 126; else cd "$HOME" || cd /; fi
  exec </dev/null >"$control/stdout.pipe" 2>"$control/stderr.pipe"
  # $$ would be the supervisor.
  read -r self rest </proc/self/stat
  echo "$self" >"$control/command"
  [ ! -e "$control/verdict" ] || exit 143
  # By its path, as busybox would take its own. The space keeps a leading minus from being an option.
  exec setsid /bin/sh -c " $command"
)
code=$?
look_at_clock
locate "$id"

# Fails when a time-out or a cancel was first.
set -C
echo "exit 0" >"$control/verdict"
set +C
read -r verdict grace <"$control/verdict"

# Who decided to end it is about to kill the rest, unless killed itself.
waits=0
while [ "$verdict" != exit ] && [ "$(left)" ]; do
  waits=$((waits + 1))
  [ "$waits" -le $((grace * 10 + 20)) ] || kill_all || break
  nap 1
done

if [ "$cgroup" ] && read -r rest populated <"$cgroup/cgroup.events" && [ "$populated" = 0 ]; then
  wait $pumps
fi
# Somebody may be left who holds the pipes open: time for the pumps to take in what was written, then leave.
waits=0
until [ -s "$control/stdout.count" ] && [ -s "$control/stderr.count" ] || [ "$waits" -ge 60 ]; do
  waits=$((waits + 1))
  nap 05
  [ "$waits" -ge 20 ] || continue
  echo >"$control/leaving"
  for stream in stdout stderr; do
    [ -s "$control/$stream.count" ] || { read -r pid <"$control/$stream.pid" && kill "$pid"; }
  done
done
read_count stdout
outcome="$code \${verdict:-exit} $written $dropped"
read_count stderr
# Again while /run is full.
until echo "ended $outcome $written $dropped $(((clock - begun) * 10)) ." >"$control/exit"; do sleep 1; done
kill "$timer"
`);
