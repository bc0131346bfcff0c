#!/bin/sh
# run.sh - build Sluice in each of its builds and run all tests
#
#   tests/run.sh [dev] [asan] [tsan] [arm64] [arm32] [bench] [fuzz] [coverage] [system]
#
# Without arguments: dev, asan, tsan, arm64 and arm32.  On Debian, as root, it first installs what is missing.
# Everything long goes to build/log/<build>.txt; the last line sums up over all builds.
#
# Environment: SLUICE_TEST_DATA  folder with reference data for the tests that can use it
#              SLUICE_JOBS       parallel jobs, by default one per core
#              SLUICE_DEPS_CACHE where third-party sources and builds are kept
#
# SPDX-License-Identifier: Apache-2.0
set -eu

cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- dev asan tsan arm64 arm32
jobs=${SLUICE_JOBS:-$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)}
logs=build/log
mkdir -p "$logs"

passed=0
failed=0
skipped=0
began=$(date +%s)

say() { printf '%s\n' "$*"; }

# What a build runs: all of it in dev; elsewhere what that build can say something about.
choose() {
    case $1 in
    dev | bench | coverage | system) echo "" ;;
    asan) echo "-LE bench" ;;
    tsan) echo "-L threads|integration" ;;
    arm64 | arm32) echo "-L unit|kernels|fuzz" ;;
    fuzz) echo "-L fuzz" ;;
    *) say "run.sh: there is no build '$1'" >&2; return 1 ;;
    esac
}

# The counts of one ctest run, from the attributes of its report's first element.
count() { # count <report> <attribute>
    tr '\n\t' '  ' <"$1" | sed -n "s/.*<testsuite [^>]*[ ]$2=\"\([0-9]*\)\".*/\1/p"
}

broken() { # broken <build> <stage> <log>
    say "$1: $2 failed; the end of $3:"
    tail -n 40 "$3"
    failed=$((failed + 1))
}

# The independent implementations that the oblivious HTTP code is tested against; where they or Node cannot be had, that test is skipped.
fetch_peers() { # fetch_peers <build>
    here=tests/integration/ohttp_interop
    there=build/$1/ohttp_interop
    [ -f "$here/package.json" ] && [ -d "$there" ] && [ ! -d "$there/node_modules" ] || return 0
    command -v npm >/dev/null 2>&1 && node -e 'process.exit(parseInt(process.versions.node) < 20)' 2>/dev/null || return 0
    cp "$here/package.json" "$there/"
    (cd "$there" && timeout 120 npm install --ignore-scripts --no-audit --no-fund --no-package-lock) >>"$logs/packages.txt" 2>&1 </dev/null ||
        rm -rf "$there/node_modules"
}

run_build() {
    name=$1
    log=$logs/$name.txt
    report=$PWD/$logs/$name.xml
    which=$(choose "$name")
    since=$(date +%s)
    rm -f "$report"

    say "$name: configuring"
    if ! cmake --preset "$name" -DSLUICE_WERROR=ON "-DSLUICE_DEPS_JOBS=$jobs" >"$log" 2>&1 </dev/null; then
        broken "$name" configuring "$log"
        return
    fi
    say "$name: building"
    if ! cmake --build "build/$name" -j "$jobs" >>"$log" 2>&1 </dev/null; then
        broken "$name" building "$log"
        return
    fi
    [ "$name" != dev ] || fetch_peers "$name"
    say "$name: testing"
    # shellcheck disable=SC2086 # an option and its value
    ctest --test-dir "build/$name" -j "$jobs" --output-on-failure --output-junit "$report" $which \
        >"$logs/$name-tests.txt" 2>&1 </dev/null || true
    if [ ! -s "$report" ]; then
        broken "$name" "starting the tests" "$logs/$name-tests.txt"
        return
    fi
    n=$(count "$report" tests)
    f=$(count "$report" failures)
    s=$(($(count "$report" skipped) + $(count "$report" disabled)))
    if [ "$f" -gt 0 ]; then
        # from the first failing test's output on; ctest lists the failed tests at the end
        sed -n '/\*\*\*/,$p' "$logs/$name-tests.txt" | tail -n 400
    fi
    passed=$((passed + n - f - s))
    failed=$((failed + f))
    skipped=$((skipped + s))
    say "$name: $n tests, $f failed, $s skipped, after $(($(date +%s) - since)) s"
}

for name in "$@"; do
    choose "$name" >/dev/null || exit 2
done

packages_log=$logs/packages.txt
: >"$packages_log"
sh cmake/packages.sh tests "$packages_log" || { tail -n 20 "$packages_log"; exit 1; }

for name in "$@"; do
    case $name in
    arm64) needs="aarch64-linux-gnu-gcc qemu-aarch64-static" ;;
    arm32) needs="arm-linux-gnueabihf-gcc qemu-arm-static" ;;
    *) needs="" ;;
    esac
    missing=""
    for tool in $needs; do
        command -v "$tool" >/dev/null 2>&1 || missing="$missing $tool"
    done
    if [ -n "$missing" ]; then
        say "$name: skipped, not here:$missing"
        skipped=$((skipped + 1))
        continue
    fi
    run_build "$name"
done

say "all builds together, after $(($(date +%s) - began)) s:"
say "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
