#!/bin/sh
# arrows.sh - check that rooms use each other only along the arrows of the architecture
#
#   arrows.sh <source root> [<links file>]
#
# Reads every C file of the rooms and reports an include of a room that the including one may not see, a
# third party's or the operating system's header outside the one folder that wraps it, a call of the
# system that has to go through the platform or the allocator, and a second definition of the two types
# that guard the way out.  The links file has a line per target, `<folder> <target> <linked target>...`,
# and is held against the same table.  Prints one line per finding; exits 1 when there is any.
#
# SPDX-License-Identifier: Apache-2.0
set -eu

root=${1:?usage: arrows.sh <source root> [<links file>]}
links=${2:-/dev/null}
cd "$root"

# A room, and the rooms or files it may include.  `public` is every header of the API; `system` stands for
# the operating system's headers.
table='
sdk/include     public
sdk/base        sluice/base.h
sdk/platform    sdk/base sluice/base.h sluice/platform.h system
sdk/crypto      sdk/base sluice/base.h sluice/gateway.h
policies        sdk/base sdk/platform sdk/crypto public
router          sdk/base policies public
local-engine    sdk/base sdk/platform sluice/base.h sluice/platform.h
cloud-adapters  sdk/base sdk/platform sdk/crypto policies/grant.h public
sdk/src         sdk/base sdk/platform sdk/crypto policies router local-engine cloud-adapters public
sdk/cli         public system local-engine/tools/model_tools.h
samples         public system
'

files=$(find sdk policies router local-engine cloud-adapters samples \
        -type f \( -name '*.c' -o -name '*.h' \) 2>/dev/null | LC_ALL=C sort)
[ -n "$files" ] || { echo "arrows.sh: no sources below $root" >&2; exit 2; }

# shellcheck disable=SC2086 # one word per file: paths in the tree have no blanks
awk -v table="$table" '
function fail(text) { printf "%s:%d: %s\n", FILENAME, FNR, text; bad = 1 }

# The rooms nest, so the longest name that fits is the one.
function room_of(path,    r, best) {
    best = ""
    for (r in allowed)
        if (index(path, r "/") == 1 && length(r) > length(best))
            best = r
    return best
}

# The line without comments and without what is inside quotes.
function code_of(line,    out, i, n, c, two) {
    out = ""
    n = length(line)
    for (i = 1; i <= n; i++) {
        c = substr(line, i, 1)
        two = substr(line, i, 2)
        if (in_comment) {
            if (two == "*/") { in_comment = 0; i++ }
        } else if (two == "/*") {
            in_comment = 1; i++
        } else if (two == "//") {
            break
        } else if (c == "\"" || c == "\047") {
            out = out c
            for (i++; i <= n && substr(line, i, 1) != c; i++)
                if (substr(line, i, 1) == "\\")
                    i++
            out = out c
        } else
            out = out c
    }
    return out
}

function check_include(name, quoted,    rest, owner, r) {
    if (name ~ /^sluice\//) {
        if (allowed[room] !~ / public / && index(allowed[room], " " name " ") == 0)
            fail(room " may not include " name)
        return
    }
    owner = ""
    if (name ~ /^sodium(\.h|\/)/) owner = "sdk/crypto"
    else if (name ~ /^cjson\// || name == "cJSON.h") owner = "samples/gateway"
    else if (name ~ /^curl\//) owner = "cloud-adapters/transport"
    else if (name ~ /^(mbedtls|psa)\//) owner = "samples/gateway"
    else if (name == "microhttpd.h") owner = "samples/gateway"
    else if (name ~ /^cmocka/) owner = "tests"
    if (owner != "" && owner != "tests" && owner != "sdk/crypto" && FILENAME ~ /^samples\/gateway\//)
        return   # a server of its own, which is no part of the library
    if (owner != "") {
        if (index(FILENAME, owner "/") != 1)
            fail(name " may be included in " owner " only")
        return
    }
    if (quoted && name ~ /^[a-z0-9_]+\.inc$/)
        return   # a table that the build makes
    if (quoted) {
        r = room_of(name)
        if (r == "")
            fail("\"" name "\" is not a path from the root")
        else if (r != room && index(allowed[room], " " r " ") == 0 && index(allowed[room], " " name " ") == 0)
            fail(room " may not include " name)
        return
    }
    if (name in libc)
        return
    if (name ~ /^(immintrin|arm_neon|arm_acle|cpuid)\.h$/ && FILENAME ~ /^(local-engine\/kernels|sdk\/platform)\//)
        return
    if (allowed[room] !~ / system / && !tool)
        fail(room " may not include the system header <" name ">")
}

BEGIN {
    n = split(table, lines, "\n")
    for (i = 1; i <= n; i++) {
        m = split(lines[i], words, " ")
        if (m == 0)
            continue
        allowed[words[1]] = " "
        for (j = 2; j <= m; j++)
            allowed[words[1]] = allowed[words[1]] words[j] " "
    }
    n = split("assert ctype errno float inttypes limits locale math setjmp signal stdalign stdarg stdatomic" \
              " stdbool stddef stdint stdio stdlib stdnoreturn string time", words, " ")
    for (i = 1; i <= n; i++)
        libc[words[i] ".h"] = 1

    before = "(^|[^A-Za-z0-9_.>])"
    memory = before "(malloc|calloc|realloc|aligned_alloc|strdup|free)[ \t]*\\("
    taken = before "(malloc|calloc|realloc)[ \t]*[,;)}]"   # handed on as a function
    system_calls = before "(clock_gettime|gettimeofday|clock|time|getrandom|arc4random[a-z_]*|rand|random|srand" \
        "|open|openat|creat|fopen|freopen|mmap|nanosleep|usleep|sleep|pthread_[a-z_]+|socket|connect|bind|getaddrinfo" \
        "|getenv|system|popen|exit|_exit|printf|fprintf|vfprintf|puts|fputs|putchar|perror)[ \t]*\\("
}

FNR == 1 {
    room = room_of(FILENAME)
    in_comment = 0
    tool = FILENAME ~ /\/tools\//    # a program that lives with the room whose files it makes
    library = room !~ /^(sdk\/platform|sdk\/cli|sdk\/include|samples)$/ && !tool
}

{
    code = in_comment || index($0, "/*") || index($0, "//") || index($0, "\"") || index($0, "\047") ? code_of($0) : $0
}

code ~ /^[ \t]*#[ \t]*include/ {
    if (match($0, /<[^>]+>/))
        check_include(substr($0, RSTART + 1, RLENGTH - 2), 0)
    else if (match($0, /"[^"]+"/))
        check_include(substr($0, RSTART + 1, RLENGTH - 2), 1)
    next
}

library && code !~ /^[ \t]*#/ {
    if (FILENAME != "sdk/base/memory.c" && (code ~ memory || code ~ taken))
        fail("memory comes from the allocator: " code)
    if (code ~ system_calls)
        fail("the system is reached through the platform: " code)
}

code ~ /struct[ \t]+sluice_grant[ \t]*(\{|$)/ && FILENAME != "policies/egress.c" {
    fail("a grant is defined, and so made, in policies/egress.c only")
}
code ~ /struct[ \t]+sluice_envelope[ \t]*(\{|$)/ && FILENAME != "cloud-adapters/oblivious/seal.c" {
    fail("an envelope is defined, and so made, in cloud-adapters/oblivious/seal.c only")
}

END { exit bad }
' $files && includes=0 || includes=1

awk '
BEGIN {
    may["sdk/base"] = ""
    may["sdk/platform"] = "sluice::base"
    may["sdk/crypto"] = "sluice::base sluice_dep::sodium"
    may["policies"] = "sluice::base sluice::platform sluice::crypto"
    may["router"] = "sluice::base sluice::policy"
    may["local-engine"] = "sluice::base sluice::platform sluice::engine sluice::modeltools" # its tools link the room itself
    may["cloud-adapters"] = "sluice::base sluice::platform sluice::crypto sluice::policy sluice_dep::curl"
    may["sdk/src"] = "sluice::base sluice::platform sluice::crypto sluice::policy sluice::router sluice::engine sluice::cloud"
    may["sdk/cli"] = "sluice::sdk sluice::modeltools" # the verb model prepares files
    may["samples"] = "sluice::sdk"
    may["samples/gateway"] = "sluice::sdk sluice_dep::mbedtls sluice_dep::cjson sluice_dep::curl"
}
/^#/ || NF == 0 { next }
!($1 in may) { printf "%s: target %s: folder unknown\n", $1, $2; bad = 1; next }
{
    for (i = 3; i <= NF; i++) {
        name = $i
        sub(/^sluice_(base|platform|crypto|policy|router|engine|modeltools|cloud|sdk)$/, "sluice::&", name)
        sub(/^sluice::sluice_/, "sluice::", name)
        if ($1 == "samples/gateway" && name ~ /libmicrohttpd\.(a|so)$/)
            continue
        if (name == "sluice_flags" || name == "Threads::Threads" || name == "m")
            continue
        if (index(" " may[$1] " ", " " name " ") == 0) {
            printf "%s: target %s may not link %s\n", $1, $2, name
            bad = 1
        }
    }
}
END { exit bad }
' "$links" && linked=0 || linked=1

[ $((includes + linked)) -eq 0 ] || exit 1
