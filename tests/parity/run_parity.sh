#!/usr/bin/env bash
# run_parity.sh - our logits against llama.cpp's, model by model
#
#   run_parity.sh PARITY_PROGRAM [PEER_PROGRAM] [MODEL.gguf ...]
#
# PEER_PROGRAM is peer_logits of this folder, built where llama.cpp is installed.  $SLUICE_PEER_LOGITS, a command that takes MODEL OUT TOKEN..., goes
# before it; $SLUICE_PEER_MODELS is a folder of further models (every *.gguf of it is compared), by the path that both programs see, and
# $SLUICE_PEER_ROOT the folder that the peer takes for its root, where that is not ours.  Without a peer: exit 77, skipped.
#
# Limits.  With f32 and f16 weights both engines compute the same sums in another order, and keep keys and values in f16: mean KL below 1e-5,
# the same likeliest token wherever two are not within rounding of each other.  With 8-bit activations each rounding that falls
# the other way is as large as the quantization itself, so two right engines differ by about as much as either differs from
# f32: mean KL below 0.01, nine in ten likeliest tokens the same.
#
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
parity=${1:?parity program}
peer=${SLUICE_PEER_LOGITS:-${2:-}}
[ -n "$peer" ] || { echo "no llama.cpp here: skipped"; exit 77; }
shift; [ $# -eq 0 ] || shift
root=${SLUICE_PEER_ROOT:-}
source=${SLUICE_SOURCE_DIR:-$(cd "$(dirname "$0")/../.." && pwd)}
work=$(mktemp -d "$root/tmp/parity.XXXXXX")
trap 'rm -rf "$work"' EXIT
shopt -s nullglob
n_tokens=70 # more than a chunk
failed=0
for model in "$@" "$source"/local-engine/models/*.gguf ${SLUICE_PEER_MODELS:+"$SLUICE_PEER_MODELS"/*.gguf}; do
  case $model in
    *[fF]32.gguf|*[fF]16.gguf) limits="1e-5 0.98" ;;
    *) limits="0.01 0.9" ;;
  esac
  cp "$model" "$work/model.gguf"
  tokens=$("$parity" --tokens "$model" $n_tokens)
  # the peer sees paths from its own root
  if ! $peer "${work#"$root"}/model.gguf" "${work#"$root"}/logits.f32" $tokens >"$work/log" 2>&1; then
    tail -3 "$work/log"; echo "the peer cannot run $model"; failed=1; continue
  fi
  "$parity" "$model" "$work/logits.f32" $limits $n_tokens || failed=1
done
exit $failed
