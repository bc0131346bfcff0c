# SPDX-License-Identifier: Apache-2.0
"""Writes a trained checkpoint as a GGUF v3 file: Q8_0 matrices, F32 norms, tokenizer, chat template."""
import argparse
import json
import os
import struct

import numpy as np
import torch

from tokenizer import ACTION, BOS, EOS, Tokenizer

U32, F32, BOOL, STR, ARRAY, I32 = 4, 6, 7, 8, 9, 5
T_F32, T_Q8_0 = 0, 8
ALIGN = 32
TEMPLATE = "{{ bos_token }}{{ messages[-1]['content'] }}<|action|>"


def string(s):
    b = s.encode("utf-8")
    return struct.pack("<Q", len(b)) + b


def value(t, v):
    if t == STR:
        return string(v)
    return struct.pack({U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}[t], v)


def kv(key, t, v, item=None):
    if t == ARRAY:
        return string(key) + struct.pack("<IIQ", ARRAY, item, len(v)) + b"".join(value(item, x) for x in v)
    return string(key) + struct.pack("<I", t) + value(t, v)


def q8_0(w):
    """Blocks of 32: float16 scale, 32 int8. Rounds to the nearest with the float32 scale, as other writers do."""
    b = np.ascontiguousarray(w, dtype=np.float32).reshape(-1, 32)
    d = np.abs(b).max(1, keepdims=True) / np.float32(127)
    inv = np.where(d > 0, 1 / np.where(d > 0, d, 1), 0).astype(np.float32)
    q = np.clip(np.rint(b * inv), -127, 127).astype(np.int8)
    out = np.empty(len(b), dtype=[("d", "<f2"), ("q", "i1", 32)])
    out["d"], out["q"] = d[:, 0].astype("<f2"), q
    return out.tobytes()


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--model", default="build/model.pt")
    ap.add_argument("--work", default="build")
    ap.add_argument("--out", default="build/sluice-intents.gguf")
    a = ap.parse_args()
    ck = torch.load(a.model, map_location="cpu")
    c, sd = ck["config"], ck["model"]
    tok = Tokenizer.load(os.path.join(a.work, "tokenizer.json"))
    lab = json.load(open(os.path.join(a.work, "labels.json")))
    meta = [
        ("general.architecture", STR, "llama"), ("general.name", STR, "sluice-intents"),
        ("general.description", STR, "English assistant requests to JSON actions"),
        ("general.license", STR, "apache-2.0"), ("general.languages", ARRAY, ["en"], STR),
        ("general.file_type", U32, 7), ("general.quantization_version", U32, 2), ("general.alignment", U32, ALIGN),
        ("llama.block_count", U32, c["layers"]), ("llama.context_length", U32, c["context"]),
        ("llama.embedding_length", U32, c["dim"]), ("llama.feed_forward_length", U32, c["ffn"]),
        ("llama.attention.head_count", U32, c["heads"]), ("llama.attention.head_count_kv", U32, c["kv_heads"]),
        ("llama.attention.layer_norm_rms_epsilon", F32, c["eps"]),
        ("llama.rope.dimension_count", U32, c["dim"] // c["heads"]), ("llama.rope.freq_base", F32, c["rope_base"]),
        ("llama.vocab_size", U32, len(tok.tokens)),
        ("tokenizer.ggml.model", STR, "gpt2"), ("tokenizer.ggml.pre", STR, "gpt-2"),
        ("tokenizer.ggml.tokens", ARRAY, tok.tokens, STR),
        ("tokenizer.ggml.token_type", ARRAY, [3 if i < 3 else 5 if tok.is_control(i) else 1 for i in range(len(tok.tokens))], I32),
        ("tokenizer.ggml.merges", ARRAY, [x + " " + y for x, y in tok.merges], STR),
        ("tokenizer.ggml.bos_token_id", U32, BOS), ("tokenizer.ggml.eos_token_id", U32, EOS),
        ("tokenizer.ggml.add_bos_token", BOOL, True), ("tokenizer.ggml.add_eos_token", BOOL, False),
        ("tokenizer.chat_template", STR, TEMPLATE),
        ("sluice.prompt_format", STR, "intent-action/1"),
        ("sluice.action_token_id", U32, ACTION),
        ("sluice.intents", ARRAY, lab["intents"], STR), ("sluice.slots", ARRAY, lab["slots"], STR),
    ]
    tensors = []
    for name, w in sd.items():
        w = w.float().numpy()
        if w.ndim == 1:
            tensors.append((name, w.shape, T_F32, np.ascontiguousarray(w, "<f4").tobytes()))
        else:
            assert w.shape[1] % 32 == 0
            tensors.append((name, w.shape, T_Q8_0, q8_0(w)))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(meta)) + b"".join(kv(*m) for m in meta)
    at = 0
    for name, shape, t, data in tensors:
        head += string(name) + struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", n) for n in reversed(shape))
        head += struct.pack("<IQ", t, at)
        at += -(-len(data) // ALIGN) * ALIGN
    with open(a.out + ".tmp", "wb") as f:
        f.write(head)
        f.write(b"\0" * (-f.tell() % ALIGN))
        for _, _, _, data in tensors:
            f.write(data)
            f.write(b"\0" * (-len(data) % ALIGN))
    os.replace(a.out + ".tmp", a.out)
    print("%s: %d bytes, %d tensors, %.2f M parameters" % (
        a.out, os.path.getsize(a.out), len(tensors), sum(int(np.prod(t[1])) for t in tensors) / 1e6))


if __name__ == "__main__":
    main()
