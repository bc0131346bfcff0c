#!/usr/bin/env bash
# run_engine.sh - speed of one model, and against llama.cpp where its llama-bench is found
#
#   run_engine.sh BENCH_ENGINE MODEL.gguf [PROMPT_TOKENS] [DECODE_TOKENS] [THREADS] [ROUNDS]
#
# The two engines take turns, one process a run (A B A B), so that a machine that slows down slows both; each process runs once unmeasured
# before it measures one run.  Prints one JSON object: medians with smallest and largest, and the ratio ours / theirs of each round
# as median, smallest and largest.  $SLUICE_LLAMA_BENCH is the peer's command ("llama-bench" by default), $SLUICE_PEER_ROOT is cut from the
# front of MODEL for it.  Figures mean little on a machine that does other work at the same time: "load" says how much.
#
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
bench=${1:?bench_engine}
model=${2:?model}
n_prompt=${3:-512} n_decode=${4:-128} threads=${5:-1} rounds=${6:-5}
peer=${SLUICE_LLAMA_BENCH:-llama-bench}
root=${SLUICE_PEER_ROOT:-}
read -r -a peer_command <<<"$peer"
has_peer=0
if command -v "${peer_command[0]}" >/dev/null && "${peer_command[@]}" --help >/dev/null 2>&1; then has_peer=1; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for ((i = 0; i < rounds; i++)); do
  "$bench" "$model" -p "$n_prompt" -n "$n_decode" -t "$threads" -r 1 >>"$work/ours"
  [ $has_peer = 0 ] ||
    "${peer_command[@]}" -m "${model#"$root"}" -p "$n_prompt" -n "$n_decode" -t "$threads" -r 1 -o jsonl 2>/dev/null >>"$work/theirs"
done
[ $has_peer = 1 ] || : >"$work/theirs"
python3 - "$work" "$model" "$threads" <<'PYTHON'
import json
import os
import statistics
import sys

work, model, threads = sys.argv[1:]


def spread(values):
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


ours = [json.loads(line) for line in open(work + "/ours")]
theirs = {"prefill": [], "decode": []}
for line in open(work + "/theirs"):
    row = json.loads(line)
    theirs["prefill" if row["n_gen"] == 0 else "decode"].append(row["avg_ts"])
out = {"model": os.path.basename(model), "kernels": ours[0]["kernels"], "threads": int(threads), "rounds": len(ours),
       "load": round(os.getloadavg()[0], 1)}
for what in ("prefill", "decode"):
    if what not in ours[0]:
        continue
    mine = [run[what]["tokens_per_s"]["median"] for run in ours]
    out[what] = {"tokens": ours[0][what]["tokens"], "ours_tokens_per_s": spread(mine)}
    if theirs[what]:
        out[what]["llama_cpp_tokens_per_s"] = spread(theirs[what])
        out[what]["ratio"] = spread([a / b for a, b in zip(mine, theirs[what])])
print(json.dumps(out))
PYTHON
