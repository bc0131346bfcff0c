#!/bin/sh
# arrows_selftest.sh - show that arrows.sh finds each kind of forbidden thing, and nothing in a good tree
#
#   arrows_selftest.sh <arrows.sh>
#
# SPDX-License-Identifier: Apache-2.0
set -eu

arrows=${1:?usage: arrows_selftest.sh <arrows.sh>}
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
failures=0

# A tree that keeps every rule, close to the edge in places.
good() {
    rm -rf "${tree:?}"/*
    mkdir -p "$tree/sdk/base" "$tree/sdk/platform" "$tree/sdk/crypto" "$tree/sdk/src" "$tree/sdk/cli" "$tree/policies" \
             "$tree/router" "$tree/local-engine/kernels" "$tree/cloud-adapters/transport" \
             "$tree/cloud-adapters/oblivious" "$tree/samples/gateway"
    printf '#include <stdlib.h>\nvoid *f(void) { return malloc(3); }\n' >"$tree/sdk/base/memory.c"
    printf '#include <fcntl.h>\n#include "sdk/base/base.h"\nint g(void) { return open("x", 0); }\n' >"$tree/sdk/platform/file_posix.c"
    printf '#include <sodium.h>\n' >"$tree/sdk/crypto/crypto_sodium.c"
    printf '#include "sdk/crypto/crypto.h"\n/* malloc(1) in a comment\n   free(2) */\nstruct sluice_grant { int a; };\n' >"$tree/policies/egress.c"
    printf '#include "policies/policy.h"\nvoid h(T *t) { t->free(t); t->al.open (t); log("free(x)"); sluice_free(t); }\n' >"$tree/router/router.c"
    printf 'struct al { void (*free)(void *); };\n#include <immintrin.h>\n' >"$tree/local-engine/kernels/kernels_avx2.c"
    printf '#include <curl/curl.h>\n#include "policies/grant.h"\n' >"$tree/cloud-adapters/transport/transport_curl.c"
    printf 'struct sluice_envelope\n{ int a; };\nstatic struct sluice_grant *x;\n' >"$tree/cloud-adapters/oblivious/seal.c"
    printf '#include "router/machine.h"\n#include "sluice/sluice.h"\n' >"$tree/sdk/src/open.c"
    printf '#include <sluice/sluice.h>\n#include <unistd.h>\nint main(void) { printf("x"); }\n' >"$tree/sdk/cli/main.c"
    printf '#include <mbedtls/ssl.h>\n#include "sluice/gateway.h"\n' >"$tree/samples/gateway/gateway.c"
    printf 'router sluice_router sluice::policy sluice::base sluice_flags\n' >"$tree/links.txt"
}

expect() { # expect <0 or 1> <what it is about>
    if sh "$arrows" "$tree" "$tree/links.txt" >"$tree/out.txt" 2>&1; then got=0; else got=$?; fi
    if [ "$got" -ne "$1" ]; then
        echo "arrows.sh gave $got, not $1: $2"
        cat "$tree/out.txt"
        failures=$((failures + 1))
    fi
}

# add <file> <text>: one offence in an otherwise good tree
add() {
    good
    printf '%s\n' "$2" >>"$tree/$1"
    expect 1 "$1 with $2"
}

good
expect 0 "the good tree"

add router/router.c '#include "local-engine/engine.h"'
add router/router.c '#include "cloud-adapters/transport/transport.h"'
add router/router.c '#include "sdk/platform/platform.h"'
add local-engine/kernels/kernels_avx2.c '#include "policies/policy.h"'
add cloud-adapters/oblivious/seal.c '#include "policies/consent.h"'
add policies/egress.c '#include "router/machine.h"'
add sdk/base/memory.c '#include "sdk/platform/platform.h"'
add sdk/base/memory.c '#include "sluice/sluice.h"'
add sdk/cli/main.c '#include "sdk/base/base.h"'
add samples/gateway/gateway.c '#include "sdk/crypto/crypto.h"'
add router/router.c '#include "machine.h"'
add router/router.c '  #  include <sodium.h>'
add policies/egress.c '#include <cjson/cJSON.h>'
add cloud-adapters/oblivious/seal.c '#include <curl/curl.h>'
add cloud-adapters/transport/transport_curl.c '#include <mbedtls/ssl.h>'
add sdk/src/open.c '#include <pthread.h>'
add router/router.c 'void *p(void) { return malloc(1); }'
add router/router.c 'static struct hooks h = { malloc, f };'
add sdk/src/open.c '    free (p);'
add samples/gateway/gateway.c '#include <sodium.h>'
add sdk/base/json.c 'void f(void *p) { free(p); }'
add policies/egress.c 'int f(void) { return fopen("x", "r") != NULL; }'
add local-engine/kernels/kernels_avx2.c 'int f(void) { return clock_gettime(0, 0); }'
add sdk/src/open.c 'void f(void) { pthread_mutex_lock(m); }'
add sdk/base/memory.c 'int f(void) { return open("x", 0); }'
add sdk/crypto/crypto_sodium.c 'int f(void) { return (int)getrandom(p, 1, 0); }'
add router/router.c 'struct sluice_grant { int mine; };'
add cloud-adapters/transport/transport_curl.c 'struct sluice_envelope {'
add links.txt 'router sluice_router sluice::engine'
add links.txt 'local-engine sluice_engine sluice_dep::curl'
add links.txt 'sdk/cli sluice_cli sluice_base'

[ "$failures" -eq 0 ] || exit 1
echo "arrows.sh: good tree accepted, every offence found"
