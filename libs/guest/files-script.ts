import { NO_READ } from './paths.js';
import { script } from './scripts.js';

export const PATH_EXIT = {
  denied: 12,
  isDirectory: 13,
  notADirectory: 14,
  notAFile: 19,
  notFound: 20,
} as const;

const NEED = `
need() {
  for tool; do
    command -v "$tool" >/dev/null || { echo "$tool" >&2; exit 127; }
  done
}
`;

/**
 * Prints "SIZE MODIFIED" and then the blocks. What counts is the file that was opened, not what the path leads to at
 * another time. Arguments: path, number of the first 4 KiB block, how many.
 */
export const READ = script(`
export LC_ALL=C
path=$1 skip=$2 count=$3
${NO_READ}
${NEED}
need dd grep head readlink stat
[ -e "$path" ] || exit ${PATH_EXIT.notFound}
[ ! -d "$path" ] || exit ${PATH_EXIT.isDirectory}
[ -f "$path" ] || exit ${PATH_EXIT.notAFile}
exec 3<"$path"
[ -f /proc/self/fd/3 ] || exit ${PATH_EXIT.notAFile}
no_read "$(readlink /proc/self/fd/3)" && exit ${PATH_EXIT.denied}
# Under another name.
for secret in /etc/shadow /etc/gshadow /etc/shadow- /etc/gshadow-; do
  [ /proc/self/fd/3 -ef "$secret" ] && exit ${PATH_EXIT.denied}
done
head -c 65536 </proc/self/fd/3 | grep -q -e 'PRIVATE KEY-----' -e 'PRIVATE KEY BLOCK-----' && exit ${PATH_EXIT.denied}
stat -L -c '%s %Y' /proc/self/fd/3 && dd bs=4096 skip="$skip" count="$count" <&3 2>/dev/null
`);

/**
 * Prints the names, one a line, each byte as a space and three octal digits; an empty line; what stat says of each. Arguments:
 * path, the name to begin after in the same form, how many, bytes of the second part.
 */
export const LIST = script(`
export LC_ALL=C QUOTING_STYLE=literal
path=$1 after=$2 count=$3 bytes=$4
${NO_READ}
${NEED}
need awk find head od sed sort stat tr xargs
[ -e "$path" ] || exit ${PATH_EXIT.notFound}
[ -d "$path" ] || exit ${PATH_EXIT.notADirectory}
cd -P -- "$path" || exit ${PATH_EXIT.notADirectory}
no_read "$(pwd -P)" && exit ${PATH_EXIT.denied}
names=$(find . ! -name . -prune -print0 | od -An -v -to1 | tr -d '\\n' |
  AFTER="$after" awk 'BEGIN { RS = " 000" } { name = substr($0, 9) } length($0) > 8 && name > ENVIRON["AFTER"] { print name }' |
  sort | head -n "$count")
echo "$names"
echo
[ -z "$names" ] ||
  printf '%b' "$(echo "$names" | sed 's/ /\\\\0/g; s/^/.\\//; s/$/\\\\0000/' | tr -d '\\n')" |
  xargs -0 stat -c '%f %s %u %g %Y %U/%G/%N' -- 2>/dev/null | head -c "$bytes"
exit 0
`);
