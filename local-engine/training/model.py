# SPDX-License-Identifier: Apache-2.0
"""The Llama-architecture network in PyTorch: RMSNorm, interleaved RoPE, grouped-query attention, SwiGLU, tied output."""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

DEFAULT = dict(dim=256, layers=6, heads=8, kv_heads=4, ffn=768, context=256, rope_base=10000.0, eps=1e-5)


def rope_tables(n, head_dim, base):
    freq = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angle = torch.arange(n, dtype=torch.float32)[:, None] * freq[None]
    return angle.cos(), angle.sin()


def rope(x, cos, sin):
    """x: [B, T, H, D]; rotates the pairs (2i, 2i+1)."""
    a, b = x[..., 0::2], x[..., 1::2]
    c, s = cos[None, :, None].to(x.dtype), sin[None, :, None].to(x.dtype)
    return torch.stack((a * c - b * s, a * s + b * c), -1).flatten(-2)


class _SwiGLU(torch.autograd.Function):
    """silu(g) * u, in the input's type (PyTorch's own bfloat16 silu is slow on CPUs)."""

    @staticmethod
    def forward(ctx, g, u):
        s = torch.sigmoid(g.float())
        ctx.save_for_backward(g, u, s.to(g.dtype))
        return (g * s.to(g.dtype)) * u

    @staticmethod
    def backward(ctx, dy):
        g, u, s = ctx.saved_tensors
        a = g * s
        return dy * u * (s + a - a * s), dy * a


class Dropout(nn.Module):
    """Dropout whose masks are random windows of one pool of random bits (drawing fresh ones costs more than a layer)."""
    pool = {}

    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        if not self.training or self.p == 0:
            return x
        n, key = x.numel(), (self.p, x.dtype, x.device)
        pool = Dropout.pool.get(key)
        if pool is None or pool.numel() < 2 * n:
            pool = Dropout.pool[key] = (torch.rand(max(4 * n, 1 << 22), device=x.device) >= self.p).to(x.dtype) / (1 - self.p)
        k = int(torch.randint(0, pool.numel() - n, (1,)))
        return x * pool[k:k + n].view(x.shape)


class _RMSNorm(torch.autograd.Function):
    """x / rms(x) * weight in float32, in autocast regions rounded to bfloat16."""

    @staticmethod
    def forward(ctx, x, weight, eps):
        r = torch.rsqrt(torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps))
        n = x * r
        ctx.save_for_backward(n, r, weight)
        y = n * weight
        return y.to(torch.bfloat16) if torch.is_autocast_cpu_enabled() or torch.is_autocast_enabled() else y

    @staticmethod
    def backward(ctx, dy):
        n, r, weight = ctx.saved_tensors
        g = dy.float()
        gn = g * n
        dw = gn.reshape(-1, gn.shape[-1]).sum(0)
        c = torch.mv(gn.reshape(-1, gn.shape[-1]), weight).view(r.shape).div_(-n.shape[-1])
        return torch.addcmul(g * weight, n, c).mul_(r), dw, None


class RMSNorm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x):
        return _RMSNorm.apply(x.float(), self.weight, self.eps)


class Block(nn.Module):
    def __init__(self, c, dropout):
        super().__init__()
        d, hd = c["dim"], c["dim"] // c["heads"]
        self.heads, self.kv, self.hd = c["heads"], c["kv_heads"], hd
        self.attn_norm, self.ffn_norm = RMSNorm(d, c["eps"]), RMSNorm(d, c["eps"])
        self.attn_q = nn.Linear(d, self.heads * hd, bias=False)
        self.attn_k = nn.Linear(d, self.kv * hd, bias=False)
        self.attn_v = nn.Linear(d, self.kv * hd, bias=False)
        self.attn_output = nn.Linear(self.heads * hd, d, bias=False)
        self.ffn_gate = nn.Linear(d, c["ffn"], bias=False)
        self.ffn_up = nn.Linear(d, c["ffn"], bias=False)
        self.ffn_down = nn.Linear(c["ffn"], d, bias=False)
        self.drop = Dropout(dropout)

    def forward(self, x, cos, sin, bias, past=None):
        B, T, _ = x.shape
        h = self.attn_norm(x)
        qkv = F.linear(h, torch.cat((self.attn_q.weight, self.attn_k.weight, self.attn_v.weight)))
        qkv = qkv.view(B, T, self.heads + 2 * self.kv, self.hd)
        qk = rope(qkv[:, :, :self.heads + self.kv], cos, sin).transpose(1, 2)
        q, k = qk[:, :self.heads] * self.hd ** -0.5, qk[:, self.heads:]
        v = qkv[:, :, self.heads + self.kv:].transpose(1, 2)
        if past is not None:
            if past[0] is not None:
                k, v = torch.cat((past[0], k), 2), torch.cat((past[1], v), 2)
            past = (k, v)
        rep = self.heads // self.kv
        if rep > 1:
            k, v = k.repeat_interleave(rep, 1), v.repeat_interleave(rep, 1)
        att = torch.matmul(q, k.transpose(-1, -2)).float()
        if bias is not None:
            att = att + bias
        att = torch.softmax(att, -1).to(v.dtype)
        y = torch.matmul(att, v).transpose(1, 2).reshape(B, T, -1)
        x = x + self.drop(self.attn_output(y))
        h = self.ffn_norm(x)
        x = x + self.drop(self.ffn_down(_SwiGLU.apply(self.ffn_gate(h), self.ffn_up(h))))
        return x, past


class Llama(nn.Module):
    def __init__(self, vocab, config=None, dropout=0.0):
        super().__init__()
        c = self.config = dict(DEFAULT, **(config or {}), vocab=vocab)
        self.token_embd = nn.Embedding(vocab, c["dim"])
        self.blk = nn.ModuleList([Block(c, dropout) for _ in range(c["layers"])])
        self.output_norm = RMSNorm(c["dim"], c["eps"])
        self.drop = Dropout(dropout)
        cos, sin = rope_tables(c["context"], c["dim"] // c["heads"], c["rope_base"])
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for n, p in self.named_parameters():
            if p.dim() == 2:
                std = c["dim"] ** -0.5 if n != "token_embd.weight" else 0.04
                if n.endswith(("attn_output.weight", "ffn_down.weight")):
                    std = p.shape[1] ** -0.5 / math.sqrt(2 * c["layers"])
                nn.init.normal_(p, 0, std)

    def forward(self, ids, cache=None):
        """ids [B, T] -> normalised hidden states [B, T, dim]. cache: a list of (k, v) per layer, extended in place."""
        T, start = ids.shape[1], 0
        if cache and cache[0][0] is not None:
            start = cache[0][0].shape[2]
        bias = None
        if T > 1:
            assert start == 0
            bias = torch.full((T, T), -1e9, device=ids.device).triu(1)
        x = self.drop(self.token_embd(ids))
        cos, sin = self.cos[start:start + T], self.sin[start:start + T]
        for i, b in enumerate(self.blk):
            x, past = b(x, cos, sin, bias, cache[i] if cache is not None else None)
            if cache is not None:
                cache[i] = past
        return self.output_norm(x)

    def logits(self, h):
        return F.linear(h, self.token_embd.weight)
