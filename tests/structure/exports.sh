#!/bin/sh
# exports.sh - check that libsluice.a exports the public API and nothing else
#
#   exports.sh <source root> <nm> <libsluice.a> <component archive>...
#
# The list cmake/exports.txt must be sorted, be what the headers declare, and be what the archive
# defines.  In the components every symbol that is not static carries the prefix, for the platforms
# whose tools cannot hide symbols inside an archive.
#
# SPDX-License-Identifier: Apache-2.0
set -eu

root=${1:?usage: exports.sh <source root> <nm> <libsluice.a> <component archive>...}
nm=$2
archive=$3
shift 3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0

complain() {
    echo "exports: $1"
    bad=1
}

compare() { # compare <title> <wanted> <got>
    if ! cmp -s "$2" "$3"; then
        complain "$1"
        LC_ALL=C comm -23 "$2" "$3" | sed 's/^/  missing: /'
        LC_ALL=C comm -13 "$2" "$3" | sed 's/^/  too many: /'
    fi
}

grep -v '^#' "$root/cmake/exports.txt" >"$work/listed"
LC_ALL=C sort -u "$work/listed" >"$work/sorted"
cmp -s "$work/listed" "$work/sorted" || complain "cmake/exports.txt is not sorted"
grep -v '^sluice_' "$work/sorted" && complain "cmake/exports.txt has a name without the prefix"

sh "$root/cmake/exports.sh" "$root"/sdk/include/sluice/*.h >"$work/declared"
compare "cmake/exports.txt is not what the headers declare (run cmake/exports.sh)" "$work/declared" "$work/sorted"

"$nm" --defined-only --extern-only "$archive" | awk 'NF == 3 { print $3 }' | LC_ALL=C sort -u >"$work/defined"
compare "libsluice.a does not define what cmake/exports.txt lists" "$work/sorted" "$work/defined"

"$nm" --defined-only --extern-only "$@" | awk 'NF == 3 && $3 !~ /^(sluice_|__asan_|__odr_asan)/ { print $3 }' >"$work/unprefixed"
if [ -s "$work/unprefixed" ]; then
    complain "components define global symbols without the prefix sluice_"
    sed 's/^/  /' "$work/unprefixed"
fi

[ "$bad" -eq 0 ] || exit 1
echo "exports: $(wc -l <"$work/defined" | tr -d ' ') public functions, nothing else"
