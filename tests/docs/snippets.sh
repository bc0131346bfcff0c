#!/bin/sh
# snippets.sh - compile the C in the manual against the public headers; a page about the inside may include from the root of the tree
#
#   snippets.sh <source root> <C compiler> [flags]...
#
# A block of C that comes next after a line
#
#     <!-- compiled by tests/docs -->
#
# in README.md or docs/*.md is a translation unit of its own.  A mark without a block is a mistake, and so is a manual without marks.
# Errors name the page and its line.
#
# SPDX-License-Identifier: Apache-2.0
set -eu

root=${1:?usage: snippets.sh <source root> <C compiler> [flags]...}
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$root"
n=0
bad=0

for page in README.md docs/*.md; do
    [ -f "$page" ] || continue
    name=$(echo "$page" | tr '/' '_')
    # A unit a block, with the place it comes from; marks without a block go to a list.
    LC_ALL=C awk -v page="$page" -v to="$work/$name" -v lost="$work/lost" '
        { sub(/\r$/, "") }
        in_block && /^```[ \t]*$/       { in_block = 0; close(unit); next }
        in_block                        { print > unit; next }
        /^<!-- compiled by tests\/docs -->[ \t]*$/ { if (marked) print page ":" marked > lost; marked = NR; next }
        marked && /^```c[ \t]*$/        { unit = to "." NR ".c"; printf "#line %d \"%s\"\n", NR + 1, page > unit; in_block = 1; marked = 0; next }
        marked && !/^[ \t]*$/           { print page ":" marked > lost; marked = 0 }
        END { if (marked) print page ":" marked > lost; if (in_block) print page ": a block without an end" > lost }
    ' "$page"
done

if [ -s "$work/lost" ]; then
    sed 's/$/: no block of C comes next after this mark/' "$work/lost"
    bad=1
fi
for unit in "$work"/*.c; do
    [ -f "$unit" ] || continue
    n=$((n + 1))
    place=$(sed -n '1s/#line \([0-9]*\) "\(.*\)"/\2:\1/p' "$unit")
    if "$@" -fsyntax-only -I. -Isdk/include "$unit"; then
        echo "ok    $place"
    else
        echo "FAIL  $place: what the manual shows does not compile"
        bad=1
    fi
done
if [ "$n" -eq 0 ]; then
    echo "FAIL  there is no marked block in README.md and docs/*.md"
    bad=1
fi
echo "$n blocks"
exit "$bad"
