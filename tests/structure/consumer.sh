#!/bin/sh
# consumer.sh - install the SDK and use it from a project that knows nothing of its tree
#
#   consumer.sh <source root> <build folder> <cmake> <generator> <C compiler> bundled|system
#
# Once through find_package(sluice), once through pkg-config.  With the bundled third parties the project
# defines functions named as libcurl's, libsodium's and cJSON's own, as an app with another version of
# them would.
#
# SPDX-License-Identifier: Apache-2.0
set -eu

root=${1:?usage: consumer.sh <source root> <build folder> <cmake> <generator> <C compiler> bundled|system}
build=$2
cmake=$3
generator=$4
cc=$5
flags=
[ "$6" = system ] || flags=-DCONSUMER_HAS_ITS_OWN_COPIES
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

step() { # step <title> <command>...
    title=$1
    shift
    if ! "$@" >"$work/log.txt" 2>&1; then
        echo "consumer: $title failed"
        cat "$work/log.txt"
        exit 1
    fi
}

[ -f "$build/lib/libsluice.a" ] || { echo "consumer: this build has no libsluice.a"; exit 77; }
step "install" "$cmake" --install "$build" --prefix "$work/prefix"

# the installed tree is moved: nothing in it may depend on where it was installed to
mv "$work/prefix" "$work/moved"
cp -R "$root/tests/structure/consumer" "$work/project"

step "configure" "$cmake" -S "$work/project" -B "$work/build" -G "$generator" "-DCMAKE_PREFIX_PATH=$work/moved" \
     "-DCMAKE_C_COMPILER=$cc" "-DCMAKE_C_FLAGS=$flags" -DCMAKE_BUILD_TYPE=Release
step "build" "$cmake" --build "$work/build"
step "run" "$work/build/consumer"
sed 's/^/consumer (CMake package): /' "$work/log.txt"

if command -v pkg-config >/dev/null 2>&1; then
    pc=$(dirname "$(find "$work/moved" -name sluice.pc)")
    # shellcheck disable=SC2016 # the inner shell expands them, one word per flag
    step "compile with pkg-config" env PKG_CONFIG_PATH="$pc" sh -c \
        '"$1" -Os $3 "$2/consumer.c" $(pkg-config --cflags --libs sluice) -Wl,--gc-sections -o "$2/by_pkgconfig"' \
        sh "$cc" "$work/project" "$flags"
    step "run" "$work/project/by_pkgconfig"
    sed 's/^/consumer (pkg-config): /' "$work/log.txt"
    if command -v size >/dev/null 2>&1; then
        size "$work/project/by_pkgconfig" | awk 'NR == 2 { print "consumer: text + data, dead sections dropped: " $1 + $2 " bytes" }'
    fi
fi
