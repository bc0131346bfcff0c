# SPDX-License-Identifier: Apache-2.0
"""Reads a GGUF file back (F32 and Q8_0 tensors) into the PyTorch network, in float32."""
import struct

import numpy as np
import torch

from model import Llama
from tokenizer import Tokenizer

_SCALAR = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


class Reader:
    def __init__(self, path):
        with open(path, "rb") as f:
            self.b = f.read()
        self.at = 4
        assert self.b[:4] == b"GGUF"
        version, n_tensors, n_kv = self.take("<IQQ")
        assert version == 3
        self.meta = {}
        for _ in range(n_kv):
            key = self.string()
            self.meta[key] = self.value(self.take("<I")[0])
        infos = []
        for _ in range(n_tensors):
            name = self.string()
            shape = self.take("<%dQ" % self.take("<I")[0])
            infos.append((name, shape[::-1]) + self.take("<IQ"))
        align = self.meta.get("general.alignment", 32)
        base = -(-self.at // align) * align
        self.tensors = {n: self.tensor(s, t, base + o) for n, s, t, o in infos}

    def take(self, fmt):
        v = struct.unpack_from(fmt, self.b, self.at)
        self.at += struct.calcsize(fmt)
        return v

    def string(self):
        n = self.take("<Q")[0]
        self.at += n
        return self.b[self.at - n:self.at].decode("utf-8")

    def value(self, t):
        if t == 8:
            return self.string()
        if t == 9:
            item, n = self.take("<IQ")
            return [self.value(item) for _ in range(n)]
        return self.take("<" + _SCALAR[t])[0]

    def tensor(self, shape, t, at):
        n = int(np.prod(shape))
        if t == 0:
            w = np.frombuffer(self.b, "<f4", n, at)
        elif t == 8:
            q = np.frombuffer(self.b, np.dtype([("d", "<f2"), ("q", "i1", 32)]), n // 32, at)
            w = q["q"].astype(np.float32) * q["d"].astype(np.float32)[:, None]
        else:
            raise ValueError("tensor type %d" % t)
        return torch.from_numpy(w.reshape(shape).astype(np.float32))


def load(path):
    """-> (network, tokenizer, metadata)"""
    r = Reader(path)
    m = r.meta
    c = dict(dim=m["llama.embedding_length"], layers=m["llama.block_count"], heads=m["llama.attention.head_count"],
             kv_heads=m["llama.attention.head_count_kv"], ffn=m["llama.feed_forward_length"],
             context=m["llama.context_length"], rope_base=m["llama.rope.freq_base"],
             eps=m["llama.attention.layer_norm_rms_epsilon"])
    net = Llama(len(m["tokenizer.ggml.tokens"]), c)
    net.load_state_dict(r.tensors)
    net.eval()
    merges = [tuple(x.split(" ")) for x in m["tokenizer.ggml.merges"]]
    pieces = ['{"intent":"' + i for i in m["sluice.intents"]] + ['","' + s + '":"' for s in m["sluice.slots"]] + ['"}']
    tok = Tokenizer(merges, pieces)
    assert tok.tokens == m["tokenizer.ggml.tokens"]
    return net, tok, m
