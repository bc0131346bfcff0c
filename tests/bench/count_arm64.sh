#!/usr/bin/env bash
# count_arm64.sh - 64-bit ARM instructions per token and per weight, of the scalar, dot product and i8mm kernels, beside each other
#
#   count_arm64.sh BUILD [MODEL.gguf] [PROMPT_TOKENS] [DECODE_TOKENS]
#
# BUILD is a build for 64-bit ARM with release flags:
#   cmake --preset arm64 -B BUILD -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS_RELEASE="-O2 -DNDEBUG" && ninja -C BUILD sluice_engine make_tiny_model
# Without a model, a small llama with Q4_K weights is made.  Prints one JSON object.
#
# How: QEMU's user mode logs each block of instructions once, when it translates it (in_asm), and its address whenever it runs (exec; nochain so that
# none is skipped).  Length times runs, summed between the calls of count_mark() in count_arm64.c, is the exact number of instructions executed.
# No plugin is needed, which the statically linked QEMU could not load.  The processors differ in what they announce, so the library itself
# chooses its kernels: cortex-a53 none of them, cortex-a76 dot product, max i8mm too.
# Instructions are not time: a multiplication of matrices takes a processor longer than an addition.
#
# SPDX-License-Identifier: Apache-2.0
set -euo pipefail
build=${1:?build for arm64}
model=${2:-}
n_prompt=${3:-32} n_decode=${4:-8}
root=$(cd "$(dirname "$0")/../.." && pwd)
qemu=${SLUICE_QEMU:-qemu-aarch64-static}
cc=${SLUICE_ARM64_CC:-aarch64-linux-gnu-gcc}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$cc" -std=c11 -O2 -static -I"$root" -I"$root/sdk/include" "$root/tests/bench/count_arm64.c" -o "$work/count" \
  -Wl,--start-group "$build/lib/libsluice_engine.a" "$build/lib/libsluice_platform.a" "$build/lib/libsluice_base.a" -Wl,--end-group -lm -lpthread
if [ -z "$model" ]; then
  model=$work/tiny.gguf
  "$qemu" -L /usr/aarch64-linux-gnu "$build/bin/make_tiny_model" llama q4_k 1 "$model"
fi
python3 - "$qemu" "$work/count" "$model" "$n_prompt" "$n_decode" <<'PYTHON'
import json
import os
import subprocess
import sys

qemu, program, model, n_prompt, n_decode = sys.argv[1:]


def count(cpu, args):
    """[(label, instructions per unit)] and the table's name"""
    run = subprocess.Popen([qemu, "-cpu", cpu, "-d", "in_asm,exec,nochain", program] + args, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    length, sums, total, marks, block = {}, [], 0, 0, None
    for line in run.stderr:
        if line.startswith(b"Trace"):
            block = None
            total += length[line[line.index(b"[") + 1:].split(b"/")[1]]
            if b" count_mark" in line or line.rstrip().endswith(b"count_mark"):
                marks += 1
                if marks % 2:
                    total = 0
                else:
                    sums.append(total)
        elif line.startswith(b"0x"):
            if block is None:
                block = line[2:line.index(b":")].rjust(16, b"0")
                length[block] = 0
            length[block] += 1
        elif line.startswith(b"IN:"):
            block = None
    out = run.stdout.read().decode().split("\n")
    if run.wait() != 0:
        sys.exit("count_arm64: the program failed on " + cpu)
    table = out[0].split()[1]
    rows = [line.split() for line in out[1:] if line]
    return table, {label: total / float(units) for (label, units), total in zip(rows, sums)}


result = {"model": os.path.basename(model), "prompt_tokens": int(n_prompt), "decode_tokens": int(n_decode), "tables": []}
for cpu in ("cortex-a53", "cortex-a76", "max"):
    table, tokens = count(cpu, ["model", model, n_prompt, n_decode])
    _, weights = count(cpu, ["kernels"])
    result["tables"].append({"kernels": table, "instructions_per_token": {k: round(v) for k, v in tokens.items()},
                             "instructions_per_weight_and_token": {k: round(v, 3) for k, v in weights.items()}})
scalar = result["tables"][0]["instructions_per_token"]
for row in result["tables"]:
    row["fewer_than_scalar"] = {k: round(scalar[k] / v, 1) for k, v in row["instructions_per_token"].items()}
print(json.dumps(result, indent=1))
PYTHON
