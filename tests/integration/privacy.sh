#!/bin/sh
# privacy.sh - what must not leave, does not: no consent, a withdrawn one, another one, rules, modes, dates
#
# The prompts carry canaries, words that stand nowhere else.  The gateway is there and would answer; its tap shows every byte that
# came through TLS.  Where strace is, a request that may not leave is seen to open no socket at all.
#
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

home=$work/home
canaries="zanzibarine quokkamantle vellichorism"
plain="zanzibarine please tell the quokkamantle about vellichorism"
mail="zanzibarine write to quokka.mantle@vellichorism.example about it"
card="zanzibarine my card 4111 1111 1111 1111 was stolen at quokkamantle by vellichorism"

start_gateway gw
for mode in cloud_only prefer_cloud prefer_local local_only; do
    policy "$work/$mode" "$work/gw.ready" "$mode"
done
forbid=',
    {"id": "never", "effect": "forbid", "classes": ["prompt"]}'
cards=',
    {"id": "no-cards", "effect": "forbid", "classes": ["payment_card", "secret"]}'
policy "$work/forbidden" "$work/gw.ready" cloud_only "" "$forbid"
policy "$work/no_cards" "$work/gw.ready" cloud_only "" "$cards"
policy "$work/expired" "$work/gw.ready" cloud_only '
  "expires": "2020-01-01T00:00:00Z",'
sed '/"id": "cloud-help"/,/"consent": true/d' "$work/cloud_only" >"$work/no_rule"

grant() { # grant <home> <classes> [until]: the id in $consent
    run 20 "$sluice" --json --home "$1" --policy "$work/cloud_only" consent grant --endpoint gateway --classes "$2" --until "${3:-1d}"
    is 0 || die "no consent: $(cat "$work/err")"
    consent=$(word id)
}

# held <claim> <home> <policy> <question> [options]: it stays here
held() {
    claim_of=$1 held_home=$2 held_policy=$3 text=$4
    shift 4
    run 30 "$sluice" --json --home "$held_home" --policy "$work/$held_policy" "$@" "$text"
    check "$claim_of: an outcome, not an error ($(word outcome), exit code $code)" is 0 3 4 8
    check "$claim_of: the receipt says that nothing left" nothing_left
    check "$claim_of: the gateway saw no byte" [ "$(bytes "$work/gw.tap")" = 0 ]
    check "$claim_of: the gateway has no request in its log" not grep -q 'request' "$work/gw.log"
}

say "what may not leave"
held "no consent" "$home" cloud_only "$plain"
check "no consent: exit code 4" is 4
held "no consent, the device first" "$home" prefer_local "$plain"
held "no consent, the cloud first" "$home" prefer_cloud "$plain"
grant "$home" prompt
held "consent to other classes" "$home" cloud_only "$mail"
check "consent to other classes: exit code 4" is 4
held "--local-only" "$home" cloud_only "$plain" --local-only
held "--local-only, the cloud first" "$home" prefer_cloud "$plain" --local-only
held "mode local_only" "$home" local_only "$plain"
held "a forbid rule" "$home" forbidden "$plain"
held "a forbid rule for cards" "$home" no_cards "$card"
held "an expired policy" "$home" expired "$plain"
held "no rule" "$home" no_rule "$plain"
run 20 "$sluice" --json --home "$home" --policy "$work/cloud_only" consent revoke "$consent"
check "the consent is revoked" is 0
held "a revoked consent" "$home" cloud_only "$plain"
run 20 "$sluice" --home "$home" --policy "$work/cloud_only" consent grant --endpoint gateway --until session
held "a consent for a session that is over" "$home" cloud_only "$plain"
run 20 "$sluice" --json --home "$home" --policy "$work/cloud_only" explain "$plain"
check "to explain sends nothing" [ "$(bytes "$work/gw.tap")" = 0 ]
# --yes answers a question of consent; it is no consent where a rule forbids
held "a forbid rule, --yes" "$home" forbidden "$plain" --yes
held "a forbid rule for cards, --yes" "$home" no_cards "$card" --yes
held "an expired policy, --yes" "$home" expired "$plain" --yes
held "--local-only, --yes" "$home" cloud_only "$plain" --yes --local-only

say "no socket"
# The transport alone may open sockets, and it starts with the first envelope: whatever is answered or held back on the device opens none of any kind.
if have strace && timeout 20 strace -f -e trace=none true 2>/dev/null; then
    traced() { # traced <policy> [options]
        use=$1
        shift
        ASAN_OPTIONS="${ASAN_OPTIONS:-}:detect_leaks=0" run 60 strace -f -qq -e trace=socket,connect,sendto,sendmsg -o "$work/trace" \
            "$sluice" --json --home "$home" --policy "$work/$use" "$@" "$plain"
    }
    opened() { grep -c 'socket(\|connect(\|sendto(\|sendmsg(' "$work/trace"; }
    echo '{"sluice_policy": 1, "id": "bare", "version": 1, "mode": "local_only"}' >"$work/bare"
    traced bare
    check "a policy without endpoints: none of any kind" [ ! -s "$work/trace" ]
    traced local_only
    check "mode local_only: none of any kind" [ ! -s "$work/trace" ]
    traced local_only --yes
    check "mode local_only, --yes: none of any kind" [ ! -s "$work/trace" ]
    traced cloud_only --local-only
    check "--local-only: none for the network" [ "$(opened)" = 0 ]
    traced forbidden --yes
    check "a forbid rule: none for the network" [ "$(opened)" = 0 ]
    traced expired --yes
    check "an expired policy: none for the network" [ "$(opened)" = 0 ]
    traced cloud_only
    check "no consent: none for the network" [ "$(opened)" = 0 ]
else
    say "skipped, no strace: that no socket is opened"
fi

say "what may leave, does, so that the silence above means something"
check "until here the tap is empty" [ "$(bytes "$work/gw.tap")" = 0 ]
grant "$home" prompt,email
run 30 "$sluice" --json --home "$home" --policy "$work/cloud_only" "$plain"
check "with consent the cloud answers" out_has '"route": "cloud"'
run 30 "$sluice" --json --home "$home" --policy "$work/cloud_only" "$mail"
check "and for the other classes too" out_has '"route": "cloud"'
check "the tap has it" [ "$(bytes "$work/gw.tap")" -ge 1000 ]
check "and the log" grep -q 'request 2' "$work/gw.log"
if have strace && [ -e "$work/trace" ]; then
    traced cloud_only
    check "strace sees that connection" [ "$(opened)" -ge 1 ]
fi
grant "$work/home2" prompt once
run 30 "$sluice" --json --home "$work/home2" --policy "$work/cloud_only" "$plain"
check "a consent for once lets one request out" out_has '"route": "cloud"'
run 30 "$sluice" --json --home "$work/home2" --policy "$work/cloud_only" "$plain"
check "and not a second one" nothing_left
run 30 "$sluice" --json --home "$work/home3" --policy "$work/cloud_only" --yes "$plain"
check "--yes agrees once" out_has '"route": "cloud"'
run 30 "$sluice" --json --home "$work/home3" --policy "$work/cloud_only" "$plain"
check "and for that one request" nothing_left

say "what is kept"
stop_gateway
for word in $canaries mantle@ '4111 1111' 41111111; do
    n=$(grep -raliF -e "$word" "$home" "$work/home2" "$work/home3" "$work/gw" "$work/gw.log" "$work/gw.tap" | wc -l)
    check "\"$word\" is in no file of the state folders, the gateway's folder, its log, its tap" [ "$n" = 0 ]
done
check "the ledger is there, and would have been searched" grep -qrF '"type":"egress"' "$home"
check "it verifies" timeout 20 "$sluice" --home "$home" --policy "$work/cloud_only" ledger verify
n=$(find "$home" "$work/home2" "$work/home3" \( -type f ! -perm 600 -o -type d ! -perm 700 \) | wc -l)
check "state folders and the files in them are for their owner only" [ "$n" = 0 ]
finish
