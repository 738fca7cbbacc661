import { NO_WRITE } from './paths.js';
import { script } from './scripts.js';

/**
 * What the guest keeps while a file is installed:
 *   /run/longhaul/files/ID.url            where to download it from, for curl to read: never an argument of a process
 *   /var/lib/longhaul/files/NAME.part     what was pushed through the channel so far
 *   /var/lib/longhaul/files/ID.directory  where a temporary file may lie, for the next installation to collect
 *   DIRECTORY/.longhaul-install.XXXXXX    the temporary file
 */
export const partFile = (name: string) => `/var/lib/longhaul/files/${name}.part`;

/** How the program below ends when it did not install the file; what it prints says more. */
export const EXIT = {
  mismatch: 10,
  missingTool: 11,
  denied: 12,
  isDirectory: 13,
  notADirectory: 14,
  noSpace: 15,
  readOnly: 16,
  notDownloaded: 17,
  invalid: 18,
  notAFile: 19,
} as const;

/** because MESSAGE CODE: ends with the code of what a tool complained about, by default with CODE. */
const BECAUSE = `
fail() {
  echo "$2"
  exit "$1"
}
because() {
  case $1 in
    *'No space left'* | *'quota exceeded'*) fail ${EXIT.noSpace} "$1" ;;
    *'Read-only file system'* | *'not permitted'* | *'Permission denied'*) fail ${EXIT.readOnly} "$1" ;;
    *'Is a directory'* | *'overwrite directory'*) fail ${EXIT.isDirectory} "$1" ;;
    *'Not a directory'* | *'File exists'*) fail ${EXIT.notADirectory} "$1" ;;
    *'name too long'* | *'invalid '* | *'unknown '*) fail ${EXIT.invalid} "$1" ;;
  esac
  fail "$2" "$1"
}
`;

/**
 * Installs one file, whole or not at all, and prints "installed" or "unchanged". Everything happens in the directory that
 * was looked at, whatever others do to the path meanwhile, and on the temporary file that was opened, whatever they put in
 * its place. The directory's owner may of course change afterwards what lies there.
 *
 * Arguments: id, path, mode, owner, size, SHA-256, "yes" for a backup, file that was pushed or '' for a download.
 */
export const INSTALL = script(`
export LC_ALL=C
umask 022
id=$1 path=$2 mode=$3 owner=$4 size=$5 sha=$6 backup=$7 part=$8
state=/var/lib/longhaul/files
url=/run/longhaul/files/$id.url
${NO_WRITE}
${BECAUSE}
# Into here: the directory that we are in.
look_around() {
  here=$(pwd -P && echo .)
  here=\${here%??}
  [ "$here" != / ] || here=
  no_write "$here/$1$name" && fail ${EXIT.denied} "$here/$1$name"
}
digest() {
  sum=$(sha256sum <"$1")
  sum=\${sum%% *}
  [ "$sum" = "$sha" ]
}
temporary=
trap 'rm -f -- \${temporary:+$temporary $temporary.backup} "$state/$id.directory" "$url" $part' EXIT
trap 'exit 143' HUP INT TERM
for tool in cat chmod chown ln mkdir mktemp mv readlink rm sha256sum stat sync; do
  command -v "$tool" >/dev/null || fail ${EXIT.missingTool} "$tool"
done

name=\${path##*/} directory=\${path%/*} missing=
until [ -d "$directory/" ]; do
  [ ! -e "$directory" ] && [ ! -L "$directory" ] || fail ${EXIT.notADirectory} "$directory"
  missing=\${directory##*/}/$missing
  directory=\${directory%/*}
done
cd -P -- "$directory/" || fail ${EXIT.notADirectory} "$directory"
look_around "$missing"
if [ "$missing" ]; then
  complaint=$(mkdir -p -- "./$missing" 2>&1) && cd -P -- "./$missing" || because "$complaint" ${EXIT.readOnly}
  look_around
fi
if [ -L "./$name" ]; then
  leads_to=$(readlink -f -- "./$name") && no_write "$leads_to" && fail ${EXIT.denied} "$leads_to"
fi
[ ! -d "./$name" ] || fail ${EXIT.isDirectory} "$here/$name"
[ -z "$backup" ] || [ ! -d "./$name.longhaul-backup" ] || fail ${EXIT.isDirectory} "$here/$name.longhaul-backup"
[ ! -e "./$name" ] || [ -f "./$name" ] || fail ${EXIT.notAFile} "$here/$name"

# There is one installation at a time: whatever else is here was left by one that was cut off.
for old in "$state"/*.directory; do
  [ -e "$old" ] || continue
  left=$(cat "$old" && echo .)
  rm -f -- "\${left%.}"/.longhaul-install.*
  rm -f "$old"
done
for old in "$state"/*.part /run/longhaul/files/*.url; do
  [ "$old" = "$part" ] || [ "$old" = "$url" ] || rm -f "$old"
done

# On the disk before there is a temporary file: the VM may lose its power at any time.
printf %s "$here" >"$state/$id.directory" && sync "$state/$id.directory" || fail ${EXIT.noSpace} "$state"
created=$(mktemp ./.longhaul-install.XXXXXXXXXX 2>&1) || because "$created" ${EXIT.readOnly}
temporary=$created
exec 3>>"$temporary"
[ "$(readlink /proc/self/fd/3) $(stat -L -c %h /proc/self/fd/3)" = "$here/\${temporary#./} 1" ] ||
  fail ${EXIT.denied} "$here/$name"

complaint=$(chown -- "$owner" /proc/self/fd/3 2>&1) || because "$complaint" ${EXIT.readOnly}
if [ -f "./$name" ] && [ ! -L "./$name" ] &&
  [ "$(stat -c '%u %g %a %s' "./$name")" = "$(stat -L -c '%u %g' /proc/self/fd/3) $mode $size" ] &&
  digest "./$name"; then
  echo unchanged
  exit
fi

if [ "$part" ]; then
  complaint=$(cat "$part" 2>&1 >&3) || because "$complaint" ${EXIT.noSpace}
else
  command -v curl >/dev/null || fail ${EXIT.notDownloaded} 'curl is not installed'
  complaint=$(curl -q -sSf --noproxy '*' --proto =http,https --connect-timeout 10 --speed-limit 1000 --speed-time 30 \\
    --max-filesize $((size + 1)) -K "$url" 2>&1 >&3)
  case $? in
    0) ;;
    # It could not write what it got.
    23) fail ${EXIT.noSpace} "$complaint" ;;
    *) fail ${EXIT.notDownloaded} "$complaint" ;;
  esac
fi
digest /proc/self/fd/3 || fail ${EXIT.mismatch} "$sum"
complaint=$(chmod "$mode" /proc/self/fd/3 2>&1) || because "$complaint" ${EXIT.readOnly}
complaint=$(sync /proc/self/fd/3 2>&1) || because "$complaint" ${EXIT.noSpace}

if [ "$backup" ] && { [ -e "./$name" ] || [ -L "./$name" ]; }; then
  # A second name for the same file, where the file system has that: it takes no space, and a program may be running it.
  complaint=$({ ln -- "./$name" "$temporary.backup" 2>/dev/null || cp -a -- "./$name" "$temporary.backup"; } 2>&1) &&
    complaint=$(mv -fT -- "$temporary.backup" "./$name.longhaul-backup" 2>&1) || because "$complaint" ${EXIT.readOnly}
fi
complaint=$(mv -fT -- "$temporary" "./$name" 2>&1) || because "$complaint" ${EXIT.readOnly}
sync .
echo installed
`);

/** Arguments: id. What comes in is where curl downloads from, unless the program has begun: then nobody would remove it again. */
export const KEEP_URL = script(`
umask 077
[ ! -d "/run/longhaul/jobs/$1" ] || exit 0
mkdir -p /run/longhaul/files /var/lib/longhaul/files &&
  cat >/run/longhaul/files/$1.new && mv -f /run/longhaul/files/$1.new /run/longhaul/files/$1.url
`);

/**
 * Arguments: file, number of 64 KiB blocks before what comes in; without it, nothing comes in. Prints the file's size
 * afterwards. The same piece may come twice, even at the same time.
 */
export const PUSH = script(`
export LC_ALL=C
umask 077
${BECAUSE}
complaint=$(mkdir -p /var/lib/longhaul/files 2>&1) || because "$complaint" ${EXIT.readOnly}
if [ "$2" ]; then
  complaint=$(dd of="$1" ibs=65536 obs=65536 seek="$2" conv=notrunc 2>&1) || because "$complaint" ${EXIT.noSpace}
fi
[ ! -e "$1" ] || stat -c %s "$1"
`);
