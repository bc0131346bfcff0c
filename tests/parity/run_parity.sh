#!/usr/bin/env bash
# run_parity.sh - our logits against llama.cpp's: every architecture, every type
#
#   run_parity.sh PARITY_PROGRAM [MAKE_TINY_MODEL [PEER_PROGRAM]]
#
# For each architecture a model with random weights is written (F32), the peer's llama-quantize turns it into each type, and both engines run
# the same files over the same tokens.  Limits: the KL divergence from the peer's F32 result is at most 1.05 times the peer's own for that file, and where the
# peer's two likeliest tokens are not within the noise of either engine's rounding, 99.5 % of the likeliest tokens are the same (parity.c); 99 % for mixtures.
#
#   SLUICE_PEER_LOGITS    a command that takes MODEL OUT TOKEN... (peer_logits of this folder, built where llama.cpp is installed)
#   SLUICE_PEER_QUANTIZE  llama-quantize ("llama-quantize")
#   SLUICE_PEER_ROOT      the folder that both take for their root, where that is not ours
#   SLUICE_PEER_MODELS    a folder of further pairs: NAME-f32.gguf or NAME-f16.gguf and NAME-TYPE.gguf, compared as they are
#   SLUICE_PARITY_TYPES, SLUICE_PARITY_ARCHITECTURES, SLUICE_PARITY_TOKENS   to run a part
#
# Prints a line of JSON a model (parity.c) and, last, what they come to.  Without a peer: exit 77, skipped.
#
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
parity=${1:?parity program}
make_model=${2:-}
peer=${SLUICE_PEER_LOGITS:-${3:-}}
[ -n "$peer" ] || { echo "no llama.cpp here: skipped"; exit 77; }
quantize=${SLUICE_PEER_QUANTIZE:-llama-quantize}
root=${SLUICE_PEER_ROOT:-}
n_tokens=${SLUICE_PARITY_TOKENS:-600} # more than a chunk
types=${SLUICE_PARITY_TYPES:-F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K_S Q4_K_S Q5_K_S Q6_K IQ4_NL IQ4_XS Q4_K_M Q5_K_M}
architectures=${SLUICE_PARITY_ARCHITECTURES:-llama llama3 mistral qwen2 qwen3 gemma2 gemma3 phi3 mixtral qwen3moe}
work=$(mktemp -d "$root/tmp/parity.XXXXXX")
trap 'rm -rf "$work"' EXIT
shopt -s nullglob
failed=0

# peer_rows MODEL OUT TOKENS: the peer sees paths from its own root
peer_rows()
{
  # shellcheck disable=SC2086
  $peer "${1#"$root"}" "${2#"$root"}" $3 >"$work/log" 2>&1 || { tail -3 "$work/log"; echo "the peer cannot run $1"; return 1; }
}

# compare NAME REFERENCE_ROWS FILE N
compare()
{
  local tokens limits rows="$2"
  tokens=$("$parity" --tokens "$3" "$4") || return 1
  if [ "$3" != "$work/model-F32.gguf" ]; then
    rows=$work/peer.rows
    peer_rows "$3" "$rows" "$tokens" || return 1
  fi
  case $1 in # where two experts are within rounding of each other the engines may take different ones: one such position in 600 moves the mean
    *mixtral* | *moe*) limits="1.05 0.99 2e-3" ;;
    *) limits="1.05 0.995 1e-5" ;;
  esac
  # shellcheck disable=SC2086
  "$parity" "$3" "$4" "$2" "$rows" $limits | sed "s|\"model\":\"[^\"]*\"|\"model\":\"$1\"|" | tee -a "$work/lines"
}

for arch in $architectures; do
  [ -n "$make_model" ] || break
  "$make_model" "$arch" f32 1 "$work/model-F32.gguf"
  tokens=$("$parity" --tokens "$work/model-F32.gguf" "$n_tokens")
  peer_rows "$work/model-F32.gguf" "$work/reference.rows" "$tokens" || { failed=1; continue; }
  for type in $types; do
    file=$work/model-$type.gguf
    if [ "$type" != F32 ]; then
      $quantize --pure "${work#"$root"}/model-F32.gguf" "${file#"$root"}" "$type" 1 >"$work/log" 2>&1 || { tail -2 "$work/log"; failed=1; continue; }
    fi
    compare "$arch-$type" "$work/reference.rows" "$file" "$n_tokens" || failed=1
    [ "$type" = F32 ] || rm -f "$file"
  done
done
for base in ${SLUICE_PEER_MODELS:+"$SLUICE_PEER_MODELS"/*-[fF]32.gguf "$SLUICE_PEER_MODELS"/*-[fF]16.gguf}; do
  n=${SLUICE_PARITY_BIG_TOKENS:-128}
  name=${base%-*}
  tokens=$("$parity" --tokens "$base" "$n")
  ln -f "$base" "$work/base.gguf" 2>/dev/null || cp "$base" "$work/base.gguf"
  peer_rows "$work/base.gguf" "$work/reference.rows" "$tokens" || { failed=1; continue; }
  for file in "$name"-*.gguf; do
    ln -f "$file" "$work/file.gguf" 2>/dev/null || cp "$file" "$work/file.gguf"
    compare "$(basename "$file" .gguf)" "$work/reference.rows" "$work/file.gguf" "$n" || failed=1
    rm -f "$work/file.gguf"
  done
done
[ ! -s "$work/lines" ] || python3 - "$work/lines" <<'PYTHON'
import json
import statistics
import sys

rows = [json.loads(line) for line in open(sys.argv[1])]
exact = [r["same_top"] for r in rows if r["kl_peer"] < 1e-4]
clear = [r["same_top_clear"] for r in rows if r["kl_peer"] >= 1e-4]
ratios = [r["kl_ours"] / r["kl_peer"] for r in rows if r["kl_peer"] > 0]
out = {"models": len(rows), "passed": sum(r["pass"] for r in rows)}
if ratios:
    out["kl_ratio"] = {"median": round(statistics.median(ratios), 4), "min": round(min(ratios), 4), "max": round(max(ratios), 4)}
if exact:
    out["same_top_of_float_models_at_least"] = min(exact)
if clear:
    out["same_top_clear_of_quantized_models_at_least"] = min(clear)
print(json.dumps(out))
PYTHON
exit $failed
