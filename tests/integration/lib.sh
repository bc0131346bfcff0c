# lib.sh - what the end-to-end scripts share: checks, bounded commands, a gateway, a policy
#
# Sourced.  A script calls check() for what it claims, run() for a program that it judges, and ends with `finish`.  It works in a
# folder of its own ($work), which goes away with everything it started, however it ends.
#
# Environment: SLUICE, SLUICE_GATEWAY  the programs      SLUICE_MODEL      the model both use
#              SLUICE_SOURCE_DIR       the source tree   SLUICE_SLOW       "1" in instrumented builds: times mean little there
#
# SPDX-License-Identifier: Apache-2.0
set -u

sluice=${SLUICE:?the program under test}
gateway=${SLUICE_GATEWAY:?the gateway}
model=${SLUICE_MODEL:?a model file}
sources=${SLUICE_SOURCE_DIR:?the source tree}
slow=${SLUICE_SLOW:-0}
unset SLUICE_HOME XDG_DATA_HOME NO_COLOR SLUICE_MODEL

LC_ALL=C.UTF-8
export LC_ALL
umask 022

work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-e2e.XXXXXX") || exit 1
work=$(cd "$work" && pwd -P)
mkdir "$work/user"
HOME=$work/user # nothing here may touch the real one
export HOME
pids=
n_checks=0
n_failed=0

# shellcheck disable=SC2329 # by the trap
clean_up() {
    trap - EXIT
    for pid in $pids; do
        kill -9 "$pid" 2>/dev/null
    done
    wait 2>/dev/null
    if [ -n "${mounted:-}" ]; then umount -l "$mounted" 2>/dev/null; fi
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

say() { printf '%s\n' "$*"; }

skip() {
    say "SKIP: $*"
    exit 77
}

die() {
    say "FAIL: $*"
    exit 1
}

# check <claim> <command>...: the claim holds when the command succeeds
check() {
    claim=$1
    shift
    n_checks=$((n_checks + 1))
    if "$@"; then
        say "ok    $claim"
    else
        n_failed=$((n_failed + 1))
        say "FAIL  $claim"
        say "      what was asked: $*"
        show_run
    fi
}

show_run() {
    [ -n "${ran:-}" ] || return 0
    say "      the last command, exit code $code after $took_ms ms: $ran"
    head -c 1500 "$work/out" 2>/dev/null | sed 's/^/      out: /'
    head -c 1500 "$work/err" 2>/dev/null | sed 's/^/      err: /'
}

finish() {
    say "$n_checks checks, $n_failed failed"
    [ "$n_failed" -eq 0 ] && [ "$n_checks" -gt 0 ]
    exit
}

# end <pid> [signal]: of a process that this script started
end() {
    kill "-${2:-TERM}" "$1" 2>/dev/null
    wait "$1" 2>/dev/null
    kept=
    for pid in $pids; do
        [ "$pid" = "$1" ] || kept="$kept $pid"
    done
    pids=$kept
}

not() { ! "$@"; }
have() { command -v "$1" >/dev/null 2>&1; }
now_ms() { echo $(($(date +%s%N) / 1000000)); }

# A span of time in ms: what is asked of a plain build, ten times that where a sanitizer slows everything down.
span() { if [ "$slow" = 1 ]; then echo $(($1 * 10)); else echo "$1"; fi; }

# run <seconds> <command>...: exit code in $code, time in $took_ms, output in $work/out and $work/err.
# A hang or a crash is a failure whatever the script asks next.
run() {
    limit=$1
    shift
    ran=$*
    began=$(now_ms)
    timeout -k 2 "$(span "$limit")" "$@" >"$work/out" 2>"$work/err" </dev/null
    code=$?
    took_ms=$(($(now_ms) - began))
    if [ "$code" -ge 124 ]; then
        n_failed=$((n_failed + 1))
        say "FAIL  neither hang nor crash (124: no end after $limit s; 128 and more: a signal)"
        show_run
    elif grep -aq 'Sanitizer' "$work/err"; then
        n_failed=$((n_failed + 1))
        say "FAIL  nothing for a sanitizer to find"
        show_run
    fi
}

# is <number>...: the exit code is one of them
is() {
    for wanted in "$@"; do
        [ "$code" -eq "$wanted" ] && return 0
    done
    return 1
}
out_has() { grep -aqF -e "$1" "$work/out"; }
err_has() { grep -aqF -e "$1" "$work/err"; }
number() { sed -n "s/.*\"$1\": *\([0-9][0-9]*\).*/\1/p" "$work/out" | head -n 1; } # of a JSON answer
word() { sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p" "$work/out" | head -n 1; }
nothing_left() { [ "$(number attempts)" = 0 ] && [ "$(number sealed_bytes_sent)" = 0 ]; }
bytes() { if [ -e "$1" ]; then wc -c <"$1" | tr -d ' '; else echo 0; fi; }

# ---- a gateway ---------------------------------------------------------------------------------------

# start_gateway <name> [options]: folder $work/<name>, made where it is new; $gateway_pid, .ready, .tap and .log
start_gateway() {
    gateway_name=$1
    shift
    if [ ! -d "$work/$gateway_name" ]; then
        timeout 30 "$gateway" init "$work/$gateway_name" >/dev/null 2>"$work/$gateway_name.init" || die "sluice-gateway init: $(cat "$work/$gateway_name.init")"
    fi
    rm -f "$work/$gateway_name.ready" "$work/$gateway_name.tap"
    "$gateway" serve "$work/$gateway_name" --model "$model" --port 0 --ready-file "$work/$gateway_name.ready" --tap "$work/$gateway_name.tap" \
        --exit-with-parent "$@" >"$work/$gateway_name.log" 2>&1 </dev/null &
    gateway_pid=$!
    pids="$pids $gateway_pid"
    waited=0
    while [ ! -s "$work/$gateway_name.ready" ]; do
        kill -0 "$gateway_pid" 2>/dev/null || die "the gateway ended at once: $(cat "$work/$gateway_name.log")"
        [ "$waited" -lt "$(span 200)" ] || die "the gateway is not ready: $(cat "$work/$gateway_name.log")"
        sleep 0.1
        waited=$((waited + 1))
    done
}

stop_gateway() { # [signal]
    end "$gateway_pid" "${1:-TERM}"
}

# ---- a policy ------------------------------------------------------------------------------------------

# policy <file> <endpoint file> <mode> [more top-level fields] [more rules]
policy() {
    cat >"$1" <<POLICY
{
  "sluice_policy": 1,
  "id": "end-to-end",
  "version": 1,
  "mode": "$3",${4:-}
  "router": {"escalate_below": 0.8, "stop_below": 0.2, "deadline_ms": 10000, "max_tokens": 64},
  "purposes": [{"id": "answer_question", "text": "Answer what the model on this device cannot.", "text_version": 1}],
  "endpoints": [
$(cat "$2")
  ],
  "rules": [
    {"id": "cloud-help", "effect": "permit", "purposes": ["answer_question"], "endpoints": ["gateway"],
     "classes": ["prompt", "email"], "consent": true}${5:-}
  ]
}
POLICY
}
