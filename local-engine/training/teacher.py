# SPDX-License-Identifier: Apache-2.0
"""A hashed n-gram linear classifier whose soft labels the network also learns from.

Word 1-2-grams and character 3-5-grams, tf-idf, softmax regression. CLINC150's rows get out-of-fold predictions, so
that the labels say what such a model really makes of an unseen request; the other rows get none (all zero). Writes
teacher.pt (probabilities, one row per row of train.jsonl).
"""
import argparse
import json
import math
import os
import re
import zlib

import torch
import torch.nn.functional as F


def grams(text):
    words = re.findall(r"[a-z]+|\d|[^\sa-z\d]", re.sub(r"'", "", text.lower()))
    out = set("w" + w for w in words) | set("b" + a + " " + b for a, b in zip(["^"] + words, words + ["$"]))
    for w in words:
        p = "<" + w + ">"
        for n in (3, 4, 5):
            out.update("c" + p[i:i + n] for i in range(len(p) - n + 1))
    return out


class Bags:
    def __init__(self, texts, buckets, idf=None):
        rows = [[zlib.crc32(g.encode()) % buckets for g in sorted(grams(t))] or [0] for t in texts]
        if idf is None:
            df = torch.zeros(buckets)
            for r in rows:
                df[list(set(r))] += 1
            idf = torch.log((1 + len(rows)) / (1 + df)) + 1
        self.idf, self.rows = idf, rows
        self.val = []
        for r in rows:
            v = idf[r]
            self.val.append(v / v.norm())

    def batch(self, idx):
        rows = [self.rows[i] for i in idx]
        off = torch.tensor([0] + [len(r) for r in rows[:-1]]).cumsum(0)
        return torch.tensor([g for r in rows for g in r]), off, torch.cat([self.val[i] for i in idx])


class Linear(torch.nn.Module):
    def __init__(self, buckets, n):
        super().__init__()
        self.w, self.b = torch.nn.Parameter(torch.zeros(buckets, n)), torch.nn.Parameter(torch.zeros(n))

    def forward(self, bag):
        return F.embedding_bag(bag[0], self.w, bag[1], mode="sum", per_sample_weights=bag[2]) + self.b


def fit(bags, y, idx, weight, n, a, seed):
    torch.manual_seed(seed)
    m = Linear(a.buckets, n)
    opt = torch.optim.Adam(m.parameters(), lr=a.lr, betas=(0.9, 0.99))
    idx = torch.tensor(idx)
    steps, done = a.epochs * math.ceil(len(idx) / a.batch), 0
    for _ in range(a.epochs):
        for part in idx[torch.randperm(len(idx))].split(a.batch):
            for g in opt.param_groups:
                g["lr"] = a.lr * (1 - done / steps)
            part = part.tolist()
            w = weight[part]
            loss = (F.cross_entropy(m(bags.batch(part)), y[part], reduction="none") * w).mean() + a.l2 * m.w.pow(2).sum()
            opt.zero_grad(set_to_none=True)
            loss.backward()
            opt.step()
            done += 1
    return m


@torch.no_grad()
def predict(m, bags, n):
    return torch.cat([m(bags.batch(list(range(i, min(n, i + 1000))))).log_softmax(-1) for i in range(0, n, 1000)])


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--work", default="build")
    ap.add_argument("--buckets", type=int, default=32768)
    ap.add_argument("--epochs", type=int, default=8)
    ap.add_argument("--batch", type=int, default=512)
    ap.add_argument("--lr", type=float, default=0.15)
    ap.add_argument("--l2", type=float, default=2e-6)
    ap.add_argument("--own", type=float, default=0.3, help="weight of templated requests")
    ap.add_argument("--mapped", type=float, default=0.3)
    ap.add_argument("--oos", type=float, default=0.1)
    ap.add_argument("--own-share", type=int, default=4, help="every so manieth templated request is used")
    ap.add_argument("--folds", type=int, default=4)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--check", action="store_true", help="train once on everything and print the validation accuracy")
    a = ap.parse_args()
    torch.set_num_threads(a.threads)

    def read(name):
        with open(os.path.join(a.work, name), encoding="utf-8") as f:
            return [json.loads(line) for line in f]
    rows, val = read("train.jsonl"), read("val.jsonl")
    names = json.load(open(os.path.join(a.work, "labels.json")))["intents"]
    iid = {n: i for i, n in enumerate(names)}
    all_rows = rows
    keep = [i for i, r in enumerate(rows) if r["src"] in ("clinc", "oos") or
            (r["src"] in ("own", "slots", "own_oos", "snips", "mapped_oos") and i % a.own_share == 0)]
    rows = [rows[i] for i in keep]
    texts = ["".join(s[0] for s in r["segs"]) for r in rows]
    bags = Bags(texts, a.buckets)
    vb = Bags([r["text"] for r in val], a.buckets, bags.idf)
    vy = torch.tensor([iid[r["intent"]] for r in val])
    y = torch.tensor([iid.get(r["intent"], 0) if r["src"] not in ("hwu64", "banking77") else 0 for r in rows])
    weight = torch.tensor([{"clinc": 1.0, "snips": 0.3, "oos": 0.5, "own": a.own, "slots": a.own,
                                    "own_oos": a.oos, "mapped": a.mapped, "mapped_oos": a.oos}.get(r["src"], 0.0) for r in rows])
    known = [i for i, r in enumerate(rows) if weight[i] > 0]
    if a.check:
        m = fit(bags, y, known, weight, len(names), a, 1)
        p = predict(m, vb, len(val))
        oos = read("oos_val.jsonl")
        po = predict(m, Bags([r["text"] for r in oos], a.buckets, bags.idf), len(oos)).exp()
        o = iid["oos"]
        thr = p.exp().max(-1)[0].sort()[0][len(val) // 20]
        print("oos recall at 5%% %.2f" % ((po.max(-1)[0] < thr) | (po.argmax(-1) == o)).float().mean())
        print("validation accuracy %.2f mean confidence %.3f" % (100 * (p.argmax(-1) == vy).float().mean(), p.exp().max(-1)[0].mean()))
        return
    fold = [zlib.crc32(t.lower().encode()) % a.folds if rows[i]["src"] == "clinc" else -1 for i, t in enumerate(texts)]
    out, vmean = torch.zeros(len(all_rows), len(names)), 0
    inside = torch.tensor(fold) >= 0
    cb = Bags([t for t, f in zip(texts, fold) if f >= 0], a.buckets, bags.idf)
    cfold, place = torch.tensor(fold)[inside], torch.tensor(keep)[inside]
    for k in range(a.folds):
        m = fit(bags, y, [i for i in known if fold[i] != k], weight, len(names), a, k)
        p = predict(m, cb, len(place))
        here = cfold == k
        out[place[here]] = p[here].exp()
        v = predict(m, vb, len(val))
        vmean = vmean + v.exp() / a.folds
        print("fold %d: out-of-fold accuracy %.2f, validation %.2f" % (k, 100 * (p[here].argmax(-1) == y[inside][here]).float().mean(),
                                                                       100 * (v.argmax(-1) == vy).float().mean()), flush=True)
    print("mean of the folds: validation %.2f" % (100 * (vmean.argmax(-1) == vy).float().mean()))
    torch.save(out.half(), os.path.join(a.work, "teacher.pt"))


if __name__ == "__main__":
    main()
