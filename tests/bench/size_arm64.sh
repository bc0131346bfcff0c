#!/bin/sh
# size_arm64.sh - what the built-in engine adds to a stripped, statically linked arm64 program, and what it needs
#
#   tests/bench/size_arm64.sh [-m MODEL.gguf] [BUILD_FOLDER]
#
# Builds the engine with the flags of the presets `release` and `small`, and size_app.c with it and without it, and prints the difference by section, and by
# archive as the linker saw it.  Fails when the engine of `small` adds more than 400 KB (1,000 bytes each) of what is in the file, which is code, constants
# and data, its share of libc and libm included; or when it needs anything but libc, libm and threads: nothing else is on the link line, and no name of a
# third-party library or of a C++ runtime may be in the program.  -m runs the program under QEMU's user mode on that model as well.
#
# SPDX-License-Identifier: Apache-2.0
set -eu

limit=400000
model=""
while getopts m: option; do
    case $option in
    m) model=$OPTARG ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
root=$(cd "$(dirname "$0")/../.." && pwd)
build=${1:-$root/build/size-arm64}
cross=aarch64-linux-gnu-
log=$build/size.log
mkdir -p "$build"

quietly() {
    "$@" >"$log" 2>&1 </dev/null || { tail -n 30 "$log"; exit 1; }
}

link() { # link <program> <flags and archives>...
    program=$build/$1
    shift
    quietly "${cross}gcc" -std=c11 -O2 -ffunction-sections -fdata-sections -I "$root" -I "$root/sdk/include" "$root/tests/bench/size_app.c" \
        -static -pthread -Wl,--gc-sections -Wl,-Map,"$program.map" -o "$program" "$@" -lm
    "${cross}strip" -o "$program.stripped" "$program"
}

# section sizes of both programs, and what differs; what takes no room in the file (.bss, .tbss) is listed and not counted
compare() { # compare <program> <limit>
    {
        "${cross}size" -A "$build/without.stripped" | sed 's/^/without /'
        "${cross}size" -A "$build/$1.stripped" | sed 's/^/with /'
    } | awk -v limit="$2" '
        $2 ~ /^\./ { size[$1, $2] += $3; if (!($2 in seen)) { seen[$2] = 1; order[++n] = $2 } }
        END {
            for (i = 1; i <= n; i++) {
                s = order[i]; d = size["with", s] - size["without", s]
                if (s ~ /^\.(comment|note)/ || d == 0) continue
                in_file = s !~ /bss$/
                printf "  %-22s %8d%s\n", s, d, in_file ? "" : "  (not in the file)"
                if (in_file) total += d
            }
            bound = (limit + 0 > 0)
            printf("  %-22s %8d%s\n", "sum", total, bound ? ", of at most " limit : "")
            exit bound && total > limit + 0
        }'
}

# whose bytes they are: sections of the linker map that were kept, by archive
by_archive() { # by_archive <map>
    awk '
        /^Linker script and memory map/ { on = 1 }
        !on { next }
        /^ \.(debug|comment|note)/ { next }
        /^ \.[^ ]+$/ { getline rest; $0 = $0 " " rest }
        /^ \.[^ ]+ +0x[0-9a-f]+ +0x[0-9a-f]+ .*\.a\(/ {
            if ($1 ~ /bss/) next
            name = $4; sub(/\(.*/, "", name); sub(/.*\//, "", name)
            print name, $3
        }' "$1" | while read -r name bytes; do echo "$name $((bytes))"; done | awk '{ sum[$1] += $2 } END { for (a in sum) print a, sum[a] }' | sort
}

verdict=0
link without
by_archive "$build/without.map" >"$build/without.txt"
for preset in release small; do
    case $preset in
    release) flags="-O2 -DNDEBUG" bound=0 ;;
    small) flags="-Os -DNDEBUG -fno-unwind-tables -fno-asynchronous-unwind-tables" bound=$limit ;;
    esac
    quietly cmake -S "$root" -B "$build/$preset" -G Ninja "-DCMAKE_TOOLCHAIN_FILE=$root/cmake/toolchains/aarch64-linux-gnu.cmake" \
        -DCMAKE_BUILD_TYPE=Release "-DCMAKE_C_FLAGS_RELEASE=$flags" -DSLUICE_ONLY=engine -DSLUICE_BUILD_TESTS=OFF
    quietly cmake --build "$build/$preset" --target sluice_engine
    lib=$build/$preset/lib
    link "with_$preset" -DSIZE_APP_WITH_ENGINE "$lib/libsluice_engine.a" "$lib/libsluice_platform.a" "$lib/libsluice_base.a"
    echo "$preset ($flags): what the engine adds, in bytes"
    compare "with_$preset" "$bound" || verdict=1
    echo "  of it, before the linker aligns and merges:"
    by_archive "$build/with_$preset.map" >"$build/with.txt"
    join -a 1 "$build/with.txt" "$build/without.txt" | awk '{ if ($2 != $3) printf "    %-20s %8d\n", $1, $2 - $3 }'
    foreign=$("${cross}nm" "$build/with_$preset" | grep -E ' (cJSON|crypto_|sodium_|curl_|Curl_|mbedtls_|nghttp2_|_Z|__cxa_(throw|begin|allocate)|__gxx)' || true)
    if [ -n "$foreign" ]; then
        echo "in the program, and not libc, libm or threads:"
        echo "$foreign"
        verdict=1
    else
        echo "  linked with libc, libm and threads alone"
    fi
done
if [ -n "$model" ]; then
    qemu-aarch64-static "$build/with_small.stripped" "$model" "Hello" || verdict=1
fi
exit $verdict
