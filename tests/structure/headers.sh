#!/bin/sh
# headers.sh - compile every header alone, twice in one unit
#
#   headers.sh <source root> c <C compiler>...      public headers strictly, and the rooms' own
#   headers.sh <source root> c++ <C++ compiler>...  public headers as C++17
#
# SPDX-License-Identifier: Apache-2.0
set -eu

root=${1:?usage: headers.sh <source root> c|c++ <compiler>...}
language=$2
shift 2
[ -n "${1:-}" ] || { echo "headers: no compiler for $language"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$root"
strict="-Wall -Wextra -Wpedantic -Werror -fsyntax-only -I."
checked=0
bad=0

check() { # check <name in the include line> <flags>...
    name=$1
    shift
    if ! "$@" "$unit"; then
        echo "headers: $name does not compile alone ($language)"
        bad=1
    fi
    checked=$((checked + 1))
}

write_unit() {
    printf '#include "%s"\n#include "%s"\nextern int sluice_header_test;\n' "$1" "$1" >"$unit"
}

if [ "$language" = c ]; then unit=$work/unit.c; else unit=$work/unit.cpp; fi
for path in sdk/include/sluice/*.h; do
    name=${path#sdk/include/}
    write_unit "$name"
    # shellcheck disable=SC2086 # several flags
    if [ "$language" = c ]; then
        check "$name" "$@" -std=c11 $strict -Isdk/include -Wstrict-prototypes
    else
        check "$name" "$@" -std=c++17 $strict -Isdk/include -Wold-style-cast
    fi
done
if [ "$language" = c ]; then
    for path in $(find sdk/base sdk/platform sdk/crypto sdk/src policies router local-engine cloud-adapters \
                  -name '*.h' ! -path 'local-engine/kernels/*_*' 2>/dev/null | LC_ALL=C sort); do
        write_unit "$path"
        # shellcheck disable=SC2086
        check "$path" "$@" -std=c11 -Wall -Wextra -Werror -fsyntax-only -I. -Isdk/include
    done
fi
[ "$bad" -eq 0 ] || exit 1
echo "headers: $checked compile alone ($language)"
