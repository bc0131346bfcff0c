#!/bin/sh
# snippets_selftest.sh - snippets.sh passes what is right, and fails what it must
#
#   snippets_selftest.sh <C compiler> [flags]...
#
# SPDX-License-Identifier: Apache-2.0
set -eu

here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/docs" "$work/sdk/include"
mark='<!-- compiled by tests/docs -->'
failed=0

# expect <0 or 1> <what it shows> <words in the output> <compiler>...
expect() {
    wanted=$1 what=$2 words=$3
    shift 3
    code=0
    sh "$here/snippets.sh" "$work" "$@" >"$work/out" 2>&1 || code=$?
    if [ "$code" -eq "$wanted" ] && grep -qF "$words" "$work/out"; then
        echo "ok    $what"
    else
        echo "FAIL  $what: exit code $code, and"
        cat "$work/out"
        failed=1
    fi
}

page() { cat >"$work/docs/page.md"; }

printf '%s\n\n```c\nint ok(void);\nint ok(void) { return 0; }\n```\n' "$mark" | page
expect 0 "what compiles passes" "1 blocks" "$@"
printf '# a page\n%s\n```c\nint bad(void) { return nothing; }\n```\n' "$mark" | page
expect 1 "what does not, fails, with its line" "docs/page.md:4" "$@"
printf '%s\n```c\nint warns(void) { int x; return 0; }\n```\n' "$mark" | page
expect 1 "a warning fails" "docs/page.md:3" "$@"
printf 'text\n```c\nthis is not marked\n```\n' | page
expect 1 "no marks at all fail" "no marked block" "$@"
printf '%s\ntext\n```c\nint a;\n```\n' "$mark" | page
expect 1 "a mark with text after it fails" "docs/page.md:1: no block" "$@"
printf '%s\n```sh\nls\n```\n%s\n```c\nextern int a;\n```\n' "$mark" "$mark" | page
expect 1 "a mark on a block of something else fails" "docs/page.md:1: no block" "$@"
printf '%s\n```c\n#include <sluice/absent.h>\n```\n' "$mark" | page
expect 1 "a header that is not public fails" "absent.h" "$@"
exit "$failed"
