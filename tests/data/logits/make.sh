#!/usr/bin/env bash
# make.sh - llama.cpp's answers for the tiny models of tests/unit/engine/tiny_model.c, as text
#
#   make.sh MAKE_TINY_MODEL
#
#   SLUICE_PEER_LOGITS      a command that takes MODEL OUT TOKEN... and writes a row of raw f32 for each position, with keys and values in f32
#   SLUICE_PEER_EMBEDDING   the same for the pooled embedding, at length 1 (tests/parity/peer_embedding.c)
#   SLUICE_PEER_ROOT        the folder that both take for their root, where that is not ours
#   SLUICE_PEER_VERSION     what stands in the files
#
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
make_model=${1:?make_tiny_model}
here=$(cd "$(dirname "$0")" && pwd)
root=${SLUICE_PEER_ROOT:-}
work=$(mktemp -d "$root/tmp/golden.XXXXXX")
trap 'rm -rf "$work"' EXIT
n_vocab=300 step=7
tokens=$(for ((i = 0; i < 40; i++)); do echo $(((i * i * 17 + i * 37 + 5) % n_vocab)); done)

for family in $("$make_model" 2>&1 | sed -n 's/^families: //p'); do
  "$make_model" "$family:small" f32 1 "$work/m.gguf"
  case $family in
    *bert) peer=$SLUICE_PEER_EMBEDDING rows="0" width=64 each=1 what=embedding ;;
    *) peer=$SLUICE_PEER_LOGITS rows="0 1 20 39" width=$n_vocab each=$step what=logits ;;
  esac
  # shellcheck disable=SC2086
  $peer "${work#"$root"}/m.gguf" "${work#"$root"}/out.f32" $tokens >/dev/null 2>"$work/log" || { cat "$work/log"; exit 1; }
  {
    echo "# $family:small f32 1: $what of llama.cpp ${SLUICE_PEER_VERSION:-}, keys and values in f32; every number $each"
    echo tokens $tokens
    for row in $rows; do
      echo "row $row" "$(od -An -v -tf4 -w4 -j $((row * width * 4)) -N $((width * 4)) "$work/out.f32" | awk -v e=$each 'NR % e == 1 || e == 1 {printf "%s%.6g", (NR > 1 ? " " : ""), $1}')"
    done
  } >"$here/$family.txt"
done
