#!/bin/sh
# demo.sh - build the command-line tool and the gateway, then let the tool show what Sluice does
#
#   samples/demo.sh [options of `sluice demo`]
#
# On Debian, as root, it first installs what is missing.  The first time takes a few minutes, because
# the pinned third-party libraries are built; after that, seconds.
#
# SPDX-License-Identifier: Apache-2.0
set -eu

cd "$(dirname "$0")/.."
log=build/log/demo.txt
mkdir -p build/log
: >"$log"

step() { # step <title> <command>...
    printf 'demo: %s\n' "$1" >&2
    shift
    if ! "$@" >>"$log" 2>&1 </dev/null; then
        printf 'demo: that failed; the end of %s:\n' "$log" >&2
        tail -n 30 "$log" >&2
        exit 1
    fi
}

sh cmake/packages.sh build "$log" >&2
step "configuring (third-party libraries are built the first time)" cmake --preset release
step "building" cmake --build build/release --target sluice_programs -j "${SLUICE_JOBS:-$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)}"
exec build/release/bin/sluice demo "$@"
