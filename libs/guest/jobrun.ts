import { COMMON, script } from './scripts.js';

/** What is known of the disk, as "ROOM STEP .": see measure_room. */
const ROOM = '/run/longhaul/room';

/**
 * A POSIX sh program that runs one command in the guest and writes down how it ended, whether or not a worker is there. The
 * files it uses are listed in scripts.ts. A fork costs 3 to 10 ms in an emulated VM, so built-ins do whatever they can, and a
 * short command gets neither pumps nor a clock.
 *
 * Two processes: the first one runs the command and reports its exit code; the second one, the supervisor, waits for that and
 * does all else. Of a short command it prints what that has printed, stdout first, and a line on how it ended.
 *
 * Arguments: id, epoch, time-out in seconds, limit of each stream in bytes, working directory or '', command.
 */
export const SUPERVISE = script(`
${COMMON}
# What lives on must not hold open what the agent waits for.
exec 4>&1 >/dev/null 2>&1
locate "$1"
timeout=$3 limit=$4 directory=$5 command=$6
same_epoch "$2" && claim || exit 0

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

# Not as redirections of a function, for which sh keeps what it closes.
start_pumps() {
  (pump stdout) 3<"$control/stdout.pipe" 4>&- 6>&- 7>&- &
  pumps=$!
  (pump stderr) 3<"$control/stderr.pipe" 4>&- 6>&- 7>&- &
  pumps="$pumps $!"
}

# drain STREAM: nobody writes any more. From the pipe at 3 into the file, and to who waits for the end.
drain() {
  dropped=0
  exec 8>"$output/$1"
  tee /proc/self/fd/4 <&3 >&8 || dropped=1
  # How far the file has come, without a program.
  read -r rest written </proc/self/fdinfo/8
  echo "$written $dropped ." >"$control/$1.count"
}

# Into written and dropped. A pump that was killed left no count.
read_count() {
  read -r written dropped rest <"$control/$1.count" || { written=$(stat -c %s "$output/$1") dropped=0; }
}

# In the background, for a sh that cannot wait for a line and a time.
start_timer() {
  (
    # A process that has just been forked would let TERM pass unheard.
    trap 'kill -KILL "$!"; exit' TERM
    # Again when something killed the sleep before its time, as in "pkill sleep".
    while look_at_clock; [ "$clock" -lt "$deadline" ]; do
      sleep $(((deadline - clock) / 100 + 1)) &
      wait "$!"
    done
    locate "$id"
    stop timeout 5
  ) 4>&- 6>&- 7>&- &
  timer=$!
}

# receive [-t SECONDS]: into code, from a line "end CODE ." of the input. A time-out may come amid a line, whose rest is no
# such line; but there are three of them.
receive() {
  until read -r "$@" word code rest; status=$?; [ "$status" != 0 ] || [ "$word$rest" = end. ]; do :; done
  [ "$status" = 0 ] || code=
  return "$status"
}

# Into code, too. Nothing when who runs the command was killed.
await_end() {
  pumps= timer= deadline=$((begun + timeout * 100))
  receive -t 0.1
  case $? in
    0) return ;;
    2) start_timer ;;
  esac
  start_pumps
  while [ -z "$timer" ]; do
    look_at_clock
    hundredths=$((deadline - clock + 1))
    if [ "$hundredths" -le 1 ]; then
      locate "$id"
      stop timeout 5
      break
    fi
    receive -t "$((hundredths / 100)).$((hundredths / 10 % 10))$((hundredths % 10))" && return
    # Before the time: there is nobody any more who could write.
    look_at_clock
    [ "$clock" -ge "$deadline" ] || return
  done
  receive
}

supervise() {
  read -r stat </proc/self/stat
  self=\${stat%% *}
  set -- \${stat##*) }
  echo "$3" >"$control/group"
  echo "$self \${20} ." >"$control/supervisor"
  # For writing, too: whoever opens them waits for nobody, and what is written stays until it is read.
  exec 6<>"$control/stdout.pipe" 7<>"$control/stderr.pipe"
  await_end
  [ "$code" ] || exit
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

  populated=
  [ -z "$cgroup" ] || read -r rest populated <"$cgroup/cgroup.events"
  if [ "$populated$pumps" = 0 ] && [ "$limit" -ge 65536 ]; then
    echo "0 0 ." >"$control/stdout.count"
    echo "0 0 ." >"$control/stderr.count"
    # An empty pipe is not worth a program.
    read -r -t 0 rest <&6 && exec 3<"$control/stdout.pipe" 6>&- && drain stdout
    read -r -t 0 rest <&7 && exec 3<"$control/stderr.pipe" 7>&- && drain stderr
  else
    [ "$pumps" ] || start_pumps
    exec 6>&- 7>&-
    [ "$populated" != 0 ] || wait $pumps
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
  outcome="ended $code \${verdict:-exit} $written $dropped"
  read_count stderr
  outcome="$outcome $written $dropped $(((clock - begun) * 10)) ."
  # Again while /run is full.
  until echo "$outcome" >"$control/exit"; do sleep 1; done
  [ "$pumps" ] || echo "$outcome" >&4
  exec 4>&-
  [ -z "$timer" ] || kill "$timer"
  measure_room
  echo "$room $step ." >${ROOM}
}

[ -z "$directory" ] || { [ -d "$directory" ] && [ -x "$directory" ]; } || refuse bad_working_directory
# As the command before has left it, without a fork.
read -r room step rest <${ROOM} && [ "$room" -gt 0 ] || measure_room
[ "$room" -gt 0 ] && mkfifo "$control/stdout.pipe" "$control/stderr.pipe" "$control/end" || refuse no_space
true >"$output/stdout" && true >"$output/stderr" || refuse no_space
# A cancel that came in between.
[ ! -e "$control/verdict" ] || refuse tombstone

look_at_clock
begun=$clock
supervise <"$control/end" &
exec 5>"$control/end"

# In the foreground: sh lets what is in the background ignore SIGINT for ever.
(
  [ -z "$cgroup" ] || echo 0 >"$cgroup/cgroup.procs" || echo >"$control/uncontained"
  echo 0 >/proc/self/oom_score_adj
  umask 022
  export LONGHAUL_COMMAND_ID="$id" HOME="\${HOME:-/root}" USER="\${USER:-root}" LOGNAME="\${LOGNAME:-root}"
  export SHELL=/bin/sh LANG="\${LANG:-C.UTF-8}" PATH="\${PATH:-/usr/sbin:/usr/bin:/sbin:/bin}"
  if [ "$directory" ]; then cd -- "$directory" || exit 126; else cd "$HOME" || cd /; fi
  exec </dev/null >"$control/stdout.pipe" 2>"$control/stderr.pipe" 4>&- 5>&-
  # $$ would be who runs it.
  read -r self rest </proc/self/stat
  echo "$self" >"$control/command"
  [ ! -e "$control/verdict" ] || exit 143
  # By its path, as busybox would take its own. The space keeps a leading minus from being an option.
  exec setsid /bin/sh -c " $command"
)
code=$?
echo "end $code .
end $code .
end $code ." >&5
`);
