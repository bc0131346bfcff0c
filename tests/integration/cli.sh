#!/bin/sh
# cli.sh - the command as scripts and people meet it: help, options, exit codes, JSON, input of every kind
#
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

home=$work/home
plain() { run 20 "$sluice" --home "$home" "$@"; }
asked() { is 0 8; } # answered, or answered weakly: what the model knows is not this test's business
is_json() { ! have python3 || timeout 20 python3 -m json.tool "$1" /dev/null; }
all_json() { ! have python3 || timeout 20 python3 -c 'import json, sys
for line in open(sys.argv[1], encoding="utf-8"): json.loads(line)' "$1"; }
usage_error() { is 2 && grep -q '^sluice: ' "$work/err" && [ ! -s "$work/out" ]; }

say "help"
for option in --help -h; do
    plain "$option"
    check "$option: exit code 0" is 0
    check "$option: on standard output" out_has "exit codes:"
done
for verb in chat explain "policy lint" "policy schema" "consent grant" "consent revoke" "consent list" "ledger list" "ledger verify" "model inspect" info demo; do
    check "help has \"sluice $verb\"" out_has "sluice $verb"
done
plain consent grant --help
check "--help wins over a verb" is 0
plain --version
check "--version" is 0
check "has a number" grep -q '^sluice [0-9]' "$work/out"
# every option of the help text is known, and every exit code is in the manual
"$sluice" --help | grep -o -- '--[a-z-]*' | sort -u >"$work/options"
while read -r option; do
    plain "$option" --help
    check "$option is an option" not err_has "unknown option"
done <"$work/options"
for n in 0 1 2 3 4 5 6 7 8; do
    check "exit code $n is in docs/cli.md" grep -q "^| $n |" "$sources/docs/cli.md"
done

say "wrong usage: exit code 2, one line on standard error, what to do"
for arguments in "--bogus hello" "-z hello" "--deadline" "--deadline soon hello" "--deadline -1 hello" "--deadline 99999999999 hello" "--seed x hello" \
 "--temperature hot hello" "--temperature nan hello" "--temperature 9 hello" "--max-tokens 1.5 hello" "--purpose nobody hello" \
    "policy" "policy bake" "policy lint" "consent" "consent give" "consent grant" "consent grant --endpoint" "consent grant --endpoint gateway" \
    "consent revoke" "ledger" "ledger burn" "model" "model eat"; do
    # shellcheck disable=SC2086
    plain $arguments
    check "sluice $arguments" usage_error
    # shellcheck disable=SC2086
    plain --json $arguments
    check "sluice --json $arguments: an object on standard error" is_json "$work/err"
    check "sluice --json $arguments: with the message" err_has '"message"'
done
plain --bogus hello
check "an unknown option is named" err_has -- --bogus
plain --deadline soon hello
check "so is one with a wrong value" err_has -- --deadline

say "questions"
plain set a timer for ten minutes
check "words need no quotes" asked
check "the answer is on standard output" [ -s "$work/out" ]
check "what is said about it is not" grep -q 'nothing left the device' "$work/err"
plain ask set a timer for ten minutes
check "ask may be said" asked
cp "$work/out" "$work/first"
plain ask set a timer for ten minutes
check "the same question has the same answer" cmp -s "$work/first" "$work/out"
plain -- --help me
check "after -- an option is a word" asked
echo "set a timer for ten minutes" | timeout 20 "$sluice" --home "$home" >"$work/stdin" 2>/dev/null
check "a question on standard input" cmp -s "$work/first" "$work/stdin"
printf 'set a timer for ten minutes\r\n' | timeout 20 "$sluice" --home "$home" - >"$work/stdin" 2>/dev/null
check "- is standard input, and the end of the line is no part of it" cmp -s "$work/first" "$work/stdin"
plain ""
check "an empty question is none" usage_error
plain "  
 "
check "nor is a blank one" usage_error
plain
check "nor is an empty standard input" usage_error
head -c 2097152 /dev/zero | tr '\0' a >"$work/two_mib"
timeout 30 "$sluice" --home "$home" - <"$work/two_mib" >"$work/out" 2>"$work/err"
code=$?
check "2 MiB are too many: exit code 2" is 2
check "and the message says so" err_has "larger"
head -c 1048576 "$work/two_mib" | tr a ' ' >"$work/spaces"
for file in "$work/spaces" "$work/one_word"; do
    [ -e "$file" ] || head -c 1000000 "$work/two_mib" >"$file"
    began=$(now_ms)
    timeout 30 "$sluice" --home "$home" --deadline 2000 - <"$file" >"$work/out" 2>"$work/err"
    code=$?
    took_ms=$(($(now_ms) - began))
    check "1 MiB of ${file##*/}: an outcome in time ($took_ms ms, exit code $code)" [ "$code" -lt 9 -a "$took_ms" -lt "$(span 10000)" ]
done
{ cat "$work/first"; yes "the quick brown fox jumps over the lazy dog, and so on;" | head -n 15000; } >"$work/long"
began=$(now_ms)
timeout 30 "$sluice" --home "$home" --deadline 2000 - <"$work/long" >"$work/out" 2>"$work/err"
code=$?
took_ms=$(($(now_ms) - began))
check "700 kB of prose: an outcome in time ($took_ms ms, exit code $code)" [ "$code" -lt 9 -a "$took_ms" -lt "$(span 10000)" ]
plain "$(printf 'caf\351 in Paris')"
check "Latin-1 is refused: exit code 2" is 2
check "and the message says UTF-8" err_has "UTF-8"
printf 'zero \0 byte' | timeout 20 "$sluice" --home "$home" - >"$work/out" 2>"$work/err"
code=$?
check "a zero byte is an outcome, too" [ "$code" -lt 9 ]
plain "日本語で天気を教えて 🌦"
check "any language is a question" [ "$code" -lt 9 ]
plain "$(printf 'a \033[31mred\033[0m question')"
check "no escape sequence reaches the output" not grep -q "$(printf '\033')" "$work/out" "$work/err"

say "colour"
plain hello
check "none where there is no terminal" not grep -q "$(printf '\033')" "$work/out" "$work/err"
if have script && script -qec true /dev/null >/dev/null 2>&1; then
    on_terminal() { timeout 20 script -qec "$* </dev/null" /dev/null >"$work/tty" 2>&1; }
    on_terminal "$sluice --home $home set a timer"
    check "on a terminal there is" grep -q "$(printf '\033\\[')" "$work/tty"
    on_terminal "NO_COLOR=1 $sluice --home $home set a timer"
    check "not with NO_COLOR" not grep -q "$(printf '\033\\[')" "$work/tty"
    on_terminal "$sluice --no-color --home $home set a timer"
    check "nor with --no-color" not grep -q "$(printf '\033\\[')" "$work/tty"
    on_terminal "$sluice --json --home $home set a timer"
    check "nor in JSON" not grep -q "$(printf '\033\\[')" "$work/tty"
else
    say "skipped, no script command: colour on a terminal"
fi

say "JSON of every verb"
have python3 || say "(no python3: whether it is JSON is not looked at)"
timeout 30 "$gateway" init "$work/gw" >"$work/endpoint" 2>/dev/null || die "sluice-gateway init"
policy "$work/policy.json" "$work/endpoint" prefer_local
json() { # json <arguments>: exit code 0 and one document on standard output
    run 30 "$sluice" --home "$home" --policy "$work/policy.json" --json "$@"
    check "sluice --json $*" is 0 4 8
    check "sluice --json $*: is JSON" is_json "$work/out"
    check "sluice --json $*: and nothing else" [ ! -s "$work/err" ]
}
json set a timer for ten minutes
json ask "quote \" backslash \\ tab	and ünïcode"
json explain what is the weather
json info
json policy lint "$work/policy.json"
json policy schema
json consent list
json consent grant --endpoint gateway --classes prompt
json consent list
json ledger verify
json model inspect
json model inspect "$model"
run 20 "$sluice" --home "$home" --policy "$work/policy.json" --json ledger list
check "sluice --json ledger list: a line of JSON for each entry" all_json "$work/out"
check "there are entries" [ -s "$work/out" ]
printf 'set a timer\nwhat is new\nexit\nnot asked\n' | timeout 60 "$sluice" --home "$home" --json chat >"$work/out" 2>"$work/err"
check "sluice --json chat: a line of JSON for each question" [ "$(wc -l <"$work/out")" = 2 ]
check "sluice --json chat: is JSON" all_json "$work/out"
cut_here="x$(printf 'é%.0s' 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40)"
run 20 "$sluice" --home "$home" --json --purpose "$cut_here" hello
check "a message that quotes half a letter is still JSON" is_json "$work/err"
run 20 "$sluice" --home "$home" --json --policy "$work/none" hello
check "an error is JSON, on standard error" is_json "$work/err"

say "policy lint and schema"
plain policy schema
check "the schema is that of the tree" cmp -s "$work/out" "$sources/policies/policy.schema.json"
plain policy lint "$work/policy.json"
check "a good file: exit code 0" is 0
check "and it says so" out_has "loads"
sed 's/"permit"/"allow"/; s/"openai-chat"/"openapi-chat"/' "$work/policy.json" >"$work/bad.json"
plain policy lint "$work/bad.json"
check "a bad one: exit code 3" is 3
check "with every error" [ "$(grep -c ': error P' "$work/out")" -ge 2 ]
check "each with its line" [ "$(grep -c 'bad.json:[0-9]*:[0-9]*: error' "$work/out")" -ge 2 ]
plain policy lint "$work/policy.json" "$work/bad.json"
check "a good and a bad one: exit code 3" is 3
check "the good one is told so" out_has "policy.json: loads"
plain policy lint "$work/nothing"
check "no file: an error" not is 0
for text in '' '{' '[]' 'null' '{"sluice_policy": 2}' '{"sluice_policy": 1}' '{"a": 1, "a": 2}' "$(printf '\357\273\277{}')" '{"sluice_policy": 1e999}'; do
    printf '%s' "$text" >"$work/odd.json"
    plain policy lint "$work/odd.json"
    check "$text: exit code 3" is 3
    check "$text: with an error" out_has ": error P"
done
head -c 3000 /dev/zero | tr '\0' '[' >"$work/deep.json"
plain policy lint "$work/deep.json"
check "deeply nested: exit code 3" is 3
head -c 1200000 /dev/zero | tr '\0' ' ' >"$work/large.json"
plain policy lint "$work/large.json"
check "too large: an error" not is 0

say "consent: there and back"
other=$work/other
kept() { run 20 "$sluice" --home "$other" --policy "$work/policy.json" "$@"; }
kept consent list
check "none at first" out_has "no consents"
kept --json consent grant --endpoint gateway --purpose answer_question --classes prompt,email --until 30d
check "granted" is 0
id=$(word id)
check "with an id" [ -n "$id" ]
kept consent list
check "listed as active" grep -q "^$id *active" "$work/out"
check "with what it covers" grep -q "answer_question to gateway, prompt, email, until 20" "$work/out"
kept consent grant --endpoint gateway --classes prompt,shoes
check "no such class: exit code 2" is 2
check "and the classes are named" err_has "payment_card"
kept consent grant --endpoint nowhere
check "no such endpoint: exit code 2" is 2
kept consent grant --endpoint gateway --purpose fun
check "no such purpose: exit code 2" is 2
for until in 0d -1d 4000d soon 30 1w; do
    kept consent grant --endpoint gateway --until "$until"
    check "--until $until: exit code 2" is 2
done
kept consent revoke c-0000000000000000
check "an id that nobody has: exit code 1" is 1
kept consent revoke "$id"
check "revoked" is 0
kept consent list
check "listed as revoked" grep -q "^$id *revoked" "$work/out"
kept consent revoke "$id"
check "to revoke it again does no harm" [ "$code" -lt 2 ]
kept consent list
check "it is one record" [ "$(grep -c "^$id " "$work/out")" = 1 ]

say "the ledger"
kept ledger list
all=$(wc -l <"$work/out")
last=$(tail -n 2 "$work/out")
check "has an entry for each change of a consent" [ "$(grep -c '"type":"consent"' "$work/out")" -ge 2 ]
kept ledger list --last 2
check "--last 2 are two" [ "$(wc -l <"$work/out")" = 2 ]
check "the last ones" [ "$(cat "$work/out")" = "$last" ]
kept ledger list --last 1000000
check "--last of more than there are is all of them" [ "$(wc -l <"$work/out")" = "$all" ]
kept ledger verify
check "verifies" out_has "$all entries"
"$sluice" --home "$other" --policy "$work/policy.json" ledger list | head -n 1 >/dev/null
check "a reader that leaves early is no crash" [ $? -eq 0 ]
if [ -w /dev/full ]; then
    timeout 20 "$sluice" --home "$other" ledger verify >/dev/full 2>"$work/err"
    code=$?
    check "an output that cannot be written is no success" not is 0
fi

say "model inspect"
plain model inspect
check "without a file: the one that came along" is 0
check "says what it is" out_has "architecture  llama"
check "and that nothing stands in the way of running it" sh -c "! grep -q \"does not run\" \"$work/out\" && grep -q \"  memory  \" \"$work/out\""

say "model quantize"
small=$work/small.gguf
quantize() { plain model quantize "$@"; }
quantize "$model" "$small" Q4_0
check "a source that is quantized already is refused" is 6
check "and the message says how to do it all the same" err_has -- --allow-requantize
check "nothing is left of it" not ls "$small"*
quantize "$model" "$small" Q4_0 --allow-requantize
check "with --allow-requantize it works" is 0
check "says what it made" out_has "small.gguf: "
check "nothing is left beside it" not ls "$small".*
check "smaller than before" [ "$(wc -c <"$small")" -lt "$(wc -c <"$model")" ]
plain model inspect "$small"
check "it is what was asked for" out_has "made as       Q4_0"
plain --model "$small" set a timer
check "and it answers" asked
cp "$small" "$work/before.gguf"
quantize "$model" "$small" Q8_0 --allow-requantize
check "an existing output is refused: exit code 1" is 1
check "and the message says how to replace it" err_has -- --force
check "it is as it was" cmp -s "$small" "$work/before.gguf"
quantize "$small" "$small" Q8_0 --allow-requantize --force --json
check "there and back, over itself with --force" is 0
check "with --json it is JSON" is_json "$work/out"
check "and nothing else" [ ! -s "$work/err" ]
plain model inspect "$small"
check "it is the other type now" out_has "made as       Q8_0"
product=$work/other.gguf
quantize "$model" "$product" Q4_9
check "no such type: exit code 2" is 2
check "and the types are named" err_has Q4_K_M
quantize "$model" "$product"
check "no type: exit code 2" is 2
quantize "$work/none.gguf" "$product" Q4_0
check "no source: exit code 6" is 6
quantize "$work" "$product" Q4_0
check "a folder as source: exit code 6" is 6
head -c 2000000 "$model" >"$work/cut.gguf"
quantize "$work/cut.gguf" "$product" Q4_0 --allow-requantize
check "a source that was cut short: exit code 6" is 6
quantize "$model" "$work/no/other.gguf" Q4_0 --allow-requantize
check "no folder for the output: exit code 1, the model is not to blame" is 1
quantize "$model" "$product" Q4_0 --allow-requantize --imatrix "$work/none"
check "no such importance matrix: the same" is 1
quantize "$model" "$product" Q4_0 --allow-requantize --calibrate "$sources/docs/cli.md" --save-imatrix "$work/before.gguf"
check "an importance matrix replaces no file unasked" is 1
quantize "$model" "$product" Q4_0 --allow-requantize --calibrate "$sources/docs/cli.md" --save-imatrix "$model" --force
check "nor ever the source" is 2
check "no failure left an output" not ls "$product"*

say "model bench"
plain --json model bench "$model" --rounds 2 --prompt 8 --decode 4 --threads 1
check "bench: exit code 0" is 0
check "with --json it is JSON" is_json "$work/out"
check "and nothing else" [ ! -s "$work/err" ]
check "of as many rounds and tokens as were asked for" out_has '"prompt_tokens": 8, "decode_tokens": 4, "rounds": 2'
plain model bench "$model" --rounds 1 --prompt 8 --decode 4
check "without: lines to read" out_has "tokens/s"
plain model bench "$model" --rounds 1 --prompt 5000
check "more tokens than the context has: exit code 2" is 2
plain model bench "$model" --threads 99
check "so many threads: exit code 2" is 2
for file in "$work" "$work/none.gguf" "$work/cut.gguf"; do
    plain model bench "$file"
    check "bench of ${file##*/}: exit code 6" is 6
    plain model inspect "$file"
    check "inspect of ${file##*/}: exit code 6" is 6
done
if [ -w /dev/full ]; then
    timeout 20 "$sluice" --json model inspect "$model" >/dev/full 2>"$work/err"
    code=$?
    check "a long output that cannot be written is no success" is 1
    check "and it is said" err_has "standard output"
fi

say "where things are"
run 20 env SLUICE_HOME="$work/by_variable" "$sluice" ledger verify
check "SLUICE_HOME" [ -d "$work/by_variable/state" ]
run 20 env SLUICE_HOME="$work/by_variable" "$sluice" --home "$work/by_option" ledger verify
check "--home comes before it" [ -d "$work/by_option/state" ]
run 20 env XDG_DATA_HOME="$work/xdg" "$sluice" ledger verify
check "XDG_DATA_HOME" [ -d "$work/xdg/sluice/state" ]
run 20 "$sluice" ledger verify
check "else below HOME" [ -d "$HOME/.local/share/sluice/state" ]
mkdir -p "$work/with_policy"
sed 's/"id": "end-to-end"/"id": "from-home"/' "$work/policy.json" >"$work/with_policy/policy.json"
run 20 "$sluice" --home "$work/with_policy" info
check "HOME/policy.json is found" out_has "from-home"
run 20 "$sluice" --home "$work/with_policy" --policy "$work/policy.json" info
check "--policy comes before it" out_has "end-to-end"
long=$work/$(head -c 5000 /dev/zero | tr '\0' d)
run 20 "$sluice" --home "$long" hello
check "a path that is too long: exit code 2" is 2
finish
