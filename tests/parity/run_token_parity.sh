#!/usr/bin/env bash
# run_token_parity.sh - our tokens against llama.cpp's: random text through real vocabularies and every pre-tokenizer
#
#   run_token_parity.sh TOKENS_PROGRAM [PEER_PROGRAM]
#
#   SLUICE_TEST_DATA      its folder vocab has the vocabularies
#   SLUICE_PEER_TOKENS    a command that takes VOCAB TEXTS (peer_tokens of this folder, built where llama.cpp is installed)
#   SLUICE_PEER_ROOT      the folder that it takes for its root, where that is not ours
#   SLUICE_TOKEN_TEXTS    how many texts (2000); SLUICE_TOKEN_SEED (1)
#
# Every text must give the same tokens (tokens.c says what is left out of the texts).  Without a peer or vocabularies: exit 77, skipped.
#
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
tokens=${1:?tokens program}
peer=${SLUICE_PEER_TOKENS:-${2:-}}
vocab=${SLUICE_TEST_DATA:-}/vocab
[ -n "$peer" ] || { echo "no llama.cpp here: skipped"; exit 77; }
[ -e "$vocab/ggml-vocab-gpt-2.gguf" ] || { echo "no \$SLUICE_TEST_DATA/vocab: skipped"; exit 77; }
root=${SLUICE_PEER_ROOT:-}
work=$(mktemp -d "$root/tmp/tokens.XXXXXX")
trap 'rm -rf "$work"' EXIT
failed=0
"$tokens" texts "${SLUICE_TOKEN_SEED:-1}" "${SLUICE_TOKEN_TEXTS:-2000}" >"$work/texts"

# compare NAME VOCAB
compare()
{
  "$tokens" encode "$2" "$work/texts" >"$work/ours"
  # shellcheck disable=SC2086
  $peer "${2#"$root"}" "${work#"$root"}/texts" >"$work/theirs" || { echo "$1: the peer cannot read it"; return 1; }
  local n
  n=$(diff --suppress-common-lines -y "$work/ours" "$work/theirs" | wc -l) || true
  echo "{\"vocabulary\":\"$1\",\"texts\":$(wc -l <"$work/ours"),\"differ\":$n}"
  [ "$n" = 0 ]
}

for file in "$vocab"/*.gguf; do
  cp "$file" "$work/vocab.gguf"
  chmod u+w "$work/vocab.gguf"
  compare "$(basename "$file" .gguf)" "$work/vocab.gguf" || failed=1
done
for pre in default llama-bpe qwen2 smollm deepseek-llm deepseek-coder tekken gpt-4o stablelm2 falcon refact command-r; do
  "$tokens" pre $pre "$vocab/ggml-vocab-gpt-2.gguf" >"$work/vocab.gguf"
  compare "gpt-2 with $pre" "$work/vocab.gguf" || failed=1
done
exit $failed
