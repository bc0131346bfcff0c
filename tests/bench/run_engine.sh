#!/usr/bin/env bash
# run_engine.sh - speed of models, beside the peers that are installed
#
#   run_engine.sh BENCH_ENGINE [-p PROMPT_TOKENS] [-n DECODE_TOKENS] [-d DEPTH] [-t "1 2"] [-r ROUNDS] [-T] MODEL.gguf...
#
# The engines take turns, one process a run (A B A B), so that a machine that slows down slows all; each process runs once unmeasured
# before it measures one run.  Prints one JSON object a model and thread count: medians with smallest and largest, the ratio ours / theirs of each round as
# median, smallest and largest, and the share of the machine's measured limits (int8 peak for prefill, read bandwidth for decode; bench_engine.c).
# -T prints a Markdown table instead.
#
# $SLUICE_LLAMA_BENCH is llama.cpp's command ("llama-bench" by default), $SLUICE_SECOND_BENCH that of a second peer with the same options (none by default:
# ik_llama.cpp's llama-bench, or llama.cpp kept from some instruction set), $SLUICE_SECOND_NAME its name in the output ("ik_llama_cpp"); $SLUICE_PEER_ROOT is cut
# from the front of MODEL for them.  Figures mean little on a machine that does other work at the same time: "load" says how much.
#
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
bench=${1:?bench_engine}
shift
n_prompt=512 n_decode=128 depth=0 threads="1" rounds=5 table=0
while getopts "p:n:d:t:r:T" option; do
  case $option in
    p) n_prompt=$OPTARG ;; n) n_decode=$OPTARG ;; d) depth=$OPTARG ;; t) threads=$OPTARG ;; r) rounds=$OPTARG ;; T) table=1 ;;
    *) exit 2 ;;
  esac
done
shift $((OPTIND - 1))
root=${SLUICE_PEER_ROOT:-}
read -r -a llama <<<"${SLUICE_LLAMA_BENCH:-llama-bench}"
read -r -a second <<<"${SLUICE_SECOND_BENCH:-}"
second_name=${SLUICE_SECOND_NAME:-ik_llama_cpp}
usable() { [ $# -gt 0 ] && command -v "$1" >/dev/null && "$@" --help >/dev/null 2>&1; }
peers=()
usable "${llama[@]}" && peers+=(llama_cpp)
[ ${#second[@]} -gt 0 ] && usable "${second[@]}" && peers+=("$second_name")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# peer_run NAME MODEL THREADS: prefill, then decode behind DEPTH tokens
peer_run()
{
  local command=("${llama[@]}")
  [ "$1" = llama_cpp ] || command=("${second[@]}")
  local common=(-m "${2#"$root"}" -t "$3" -r 1 -o jsonl)
  if [ "$depth" = 0 ]; then
    "${command[@]}" "${common[@]}" -p "$n_prompt" -n "$n_decode" 2>/dev/null >>"$work/$1"
  else
    "${command[@]}" "${common[@]}" -p "$n_prompt" -n 0 2>/dev/null >>"$work/$1"
    "${command[@]}" "${common[@]}" -p 0 -n "$n_decode" -d "$depth" 2>/dev/null >>"$work/$1"
  fi
}

for model in "$@"; do
  for t in $threads; do
    rm -f "$work"/*
    for ((i = 0; i < rounds; i++)); do
      "$bench" "$model" -p "$n_prompt" -n "$n_decode" -d "$depth" -t "$t" -r 1 -l >>"$work/ours"
      for peer in ${peers[@]+"${peers[@]}"}; do peer_run "$peer" "$model" "$t"; done
    done
    python3 - "$work" "$model" "$t" $table "$second_name" <<'PYTHON'
import json
import os
import statistics
import sys

work, model, threads, table, second = sys.argv[1:]


def spread(values, digits=3):
    return {"median": round(statistics.median(values), digits), "min": round(min(values), digits), "max": round(max(values), digits)}


def shown(s):
    return f"{s['median']:.2f} ({s['min']:.2f}-{s['max']:.2f})"


ours = [json.loads(line) for line in open(work + "/ours")]
out = {"model": os.path.basename(model), "kernels": ours[0]["kernels"], "threads": int(threads), "rounds": len(ours),
       "load": round(os.getloadavg()[0], 1), "limits": {k: spread([r["limits"][k] for r in ours], 2) for k in ("int8_gop_per_s", "read_gb_per_s")}}
cells = [out["model"], threads]
for what, share in (("prefill", "prefill_share_of_int8_peak"), ("decode", "decode_share_of_bandwidth")):
    if what not in ours[0]:
        continue
    mine = [run[what]["tokens_per_s"]["median"] for run in ours]
    out[what] = {"tokens": ours[0][what]["tokens"], "depth": ours[0][what]["depth"], "ours_tokens_per_s": spread(mine)}
    if share in ours[0]:
        out[what]["share_of_limit"] = spread([run[share] for run in ours])
    cells += [shown(out[what]["ours_tokens_per_s"])]
    for peer in ("llama_cpp", second):
        if not os.path.exists(f"{work}/{peer}"):
            continue
        rows = [json.loads(line) for line in open(f"{work}/{peer}")]
        theirs = [r["avg_ts"] for r in rows if (r["n_gen"] == 0) == (what == "prefill")]
        if theirs:
            out[what][peer + "_tokens_per_s"] = spread(theirs)
            out[what]["ratio_to_" + peer] = spread([a / b for a, b in zip(mine, theirs)])
            cells += [shown(spread(theirs)), shown(out[what]["ratio_to_" + peer])]
    cells += [f"{100 * out[what]['share_of_limit']['median']:.0f} %" if "share_of_limit" in out[what] else "-"]
out["memory"] = ours[0]["memory"]
print("| " + " | ".join(cells) + " |" if table == "1" else json.dumps(out), flush=True)
PYTHON
  done
done
