#!/bin/sh
# demo.sh - what a stranger's first minute shows: `sluice demo`, judged from outside
#
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

home=$work/home
mkdir "$work/cwd" "$work/tmp"
TMPDIR=$work/tmp
export TMPDIR
cd "$work/cwd" || exit 1

# Everything outside the state folder that the demo could touch: files with size and time, folders by name.
outside() { (cd "$work" && find user cwd tmp -type d -print -o -exec ls -lnd --time-style=+%s.%N {} + | sort); }

# One request of --json output a line.
requests() { tr '\n' ' ' <"$work/out" | sed 's/ {"prompt": /\n&/g' | grep '"prompt"'; }
round_one() { requests | sed 's/, "with_consent".*//'; }
round_two() { requests | grep '"with_consent"' | sed 's/.*"with_consent"//'; }
prompts() { requests | sed 's/^ *{"prompt": "//; s/", "without_consent".*//'; }
at_least() { [ "$1" -ge "$2" ]; }

# Every 12 bytes in a row of every prompt, one to a line.
fragments() { prompts | awk '{ for (i = 1; i + 11 <= length($0); i++) print substr($0, i, 12) }' | sort -u; }

judge() { # judge <round name>
    check "$1: exit code 0" is 0
    check "$1: the ledger is verified" out_has '"verified": true'
    n=$(round_one | grep -c '"outcome": "answered", "route": "local"')
    check "$1: at least 4 requests are answered on the device ($n)" at_least "$n" 4
    check "$1: nothing left before there was consent" [ "$(round_one | grep -vc '"attempts": 0')" = 0 ]
    n=$(requests | grep '"outcome": "needs_consent".*"with_consent"' | sed 's/.*"with_consent"//' | grep -c '"outcome": "answered", "route": "cloud"')
    check "$1: at least one was held back, and answered by the cloud with consent ($n)" at_least "$n" 1
    check "$1: the one with a payment card was there" [ "$(requests | grep -c '4111 1111 1111 1111')" = 1 ]
    n=$(requests | grep '4111 1111 1111 1111' | grep -o '"attempts": [0-9]*' | grep -vc '"attempts": 0$')
    check "$1: it never left, in neither round" [ "$n" = 0 ]
    check "$1: what did leave was sealed and is in the ledger" [ "$(round_two | grep '"route": "cloud"' | grep -c '"ledger_seq": 0\|"sealed_bytes_sent": 0')" = 0 ]
    check "$1: the demo itself found no fragment of a prompt on the gateway's TLS side" out_has '"prompt_fragments_in_them": 0'
    fragments >"$work/fragments"
    check "$1: there is something to search for" at_least "$(wc -l <"$work/fragments")" 100
    check "$1: and something to search in" at_least "$(bytes "$home/demo/gateway.tap")" 1000
    n=$(LC_ALL=C grep -acFf "$work/fragments" "$home/demo/gateway.tap")
    check "$1: no 12 bytes of any prompt in the gateway's tap" [ "$n" = 0 ]
    # that the search can find: the tap with one prompt in it
    { cat "$home/demo/gateway.tap"; prompts | head -n 1; } >"$work/control"
    check "$1: the search finds a prompt where there is one" [ "$(LC_ALL=C grep -acFf "$work/fragments" "$work/control")" -ge 1 ]
    n=$(LC_ALL=C find "$home" -type f -exec grep -alFf "$work/fragments" {} + | wc -l)
    check "$1: nor in any file of the state folder" [ "$n" = 0 ]
}

say "the demo, --json"
outside >"$work/before"
run 120 env SLUICE_HOME="$home" "$sluice" demo --yes --json
judge "first run"
if have python3; then
    check "its output is JSON" timeout 20 python3 -m json.tool "$work/out" "$work/pretty.json"
fi
check "nothing on standard error" [ ! -s "$work/err" ]

say "the demo again, in the same folder"
run 120 env SLUICE_HOME="$home" "$sluice" demo --yes --json
judge "second run"

say "the demo for people"
run 120 env SLUICE_HOME="$home" "$sluice" demo --yes
check "exit code 0" is 0
check "the ledger is verified" out_has "chain and authentication verified"
check "no fragment of a prompt" out_has "; 0 fragments of 12 or more bytes"
check "no colour where there is no terminal" not out_has "$(printf '\033[')"

say "the demo without anybody who agrees"
run 120 env SLUICE_HOME="$home" "$sluice" demo --json
check "exit code 0" is 0
check "nothing left" [ "$(requests | grep -o '"attempts": [0-9]*' | grep -vc '"attempts": 0$')" = 0 ]
check "the gateway saw no byte" [ "$(bytes "$home/demo/gateway.tap")" = 0 ]

say "where it wrote"
outside >"$work/after"
check "nothing in HOME, in the working folder or in the folder for temporary files" cmp -s "$work/before" "$work/after"
check "the state folder holds the demo alone" [ "$(ls -A "$home")" = demo ]
n=$(find "$home/demo/state" "$home/demo/gateway" -type f \( -name '*.key' -o -path '*/keys/*' \) ! -perm 600 | wc -l)
check "keys are for their owner only" [ "$n" = 0 ]
# shellcheck disable=SC2009
check "no gateway is left running" [ "$(ps -eo args 2>/dev/null | grep -F "$home/demo" | grep -vc grep)" = 0 ]

finish
