# SPDX-License-Identifier: Apache-2.0
"""Fits the router's confidence to a model file and writes it into the file's metadata.

confidence = 1 / (1 + exp(-(bias + weight_min * min + weight_mean * mean))) over the natural log-probabilities of the answer's tokens, the
end token included, as router/confidence.c computes it.  Weights are not negative.  Fitted on validation requests (CLINC150, in and out of scope: is
the intent right?  SNIPS held back: is the whole action right?), without those that the model declines.  The printed figures are
cross-fitted: each half is measured with a fit to the other half.
"""
import argparse
import json
import math
import os
import struct

import numpy as np
import torch

import gguf
from evaluate import auroc, ece, greedy, parse, risks, rounded
from export_gguf import F32, kv
from prepare import held_back, rows, snips

KEYS = ("sluice.confidence.bias", "sluice.confidence.weight_min", "sluice.confidence.weight_mean")


def collect(net, tok, data):
    """-> min and mean log-probability (n, 2), right (n), set name (n)"""
    x, good, part = [], [], []
    val, oos = rows(data, "clinc150.val"), rows(data, "clinc150.oos_val")
    test = [snips(r) for r in rows(data, "snips.train") if held_back(r["text"]) and '"' not in r["text"] and "\\" not in r["text"]]
    test = test[::max(1, len(test) // 600)]  # 600 of them are enough for three numbers
    sets = (("clinc150", val + oos), ("snips", test))
    for name, requests in sets:
        texts = [r["text"].rstrip() for r in requests]
        for (ids, lps), r, text in zip(greedy(net, tok, texts), requests, texts):
            intent, said = parse(tok, ids)
            if intent == "oos":
                continue
            right = intent == r["intent"]
            if name == "snips":
                right = right and said == {s["name"]: text[s["start"]:s["end"]] for s in r["slots"]}
            x.append((min(lps), sum(lps) / len(lps)))
            good.append(bool(right))
            part.append(name)
    return np.array(x), np.array(good), np.array(part)


def fit(x, good):
    """Penalised maximum likelihood; softplus keeps the weights positive."""
    t, y = torch.tensor(x, dtype=torch.float64), torch.tensor(good, dtype=torch.float64)
    p = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    opt = torch.optim.LBFGS([p], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        opt.zero_grad()
        w = torch.nn.functional.softplus(p[1:])
        loss = torch.nn.functional.binary_cross_entropy_with_logits(p[0] + t @ w, y) + 1e-4 * (p ** 2).sum()
        loss.backward()
        return loss

    opt.step(closure)
    w = torch.nn.functional.softplus(p[1:]).tolist()
    return [p[0].item()] + w


def apply(x, c):
    return 1 / (1 + np.exp(-(c[0] + x @ np.array(c[1:]))))


def figures(conf, good, threshold):
    conf, good = list(conf), list(good)
    kept = [g for c, g in zip(conf, good) if c >= threshold]
    right, wrong = [c for c, g in zip(conf, good) if g], [c for c, g in zip(conf, good) if not g]
    return {"requests": len(good), "accuracy": sum(good) / len(good), "auroc": auroc(conf, good), "ece": ece(conf, good),
            "mean_right": sum(right) / len(right), "mean_wrong": sum(wrong) / len(wrong), "risk_at_coverage": risks(conf, good),
            "kept_at_threshold": len(kept) / len(good), "accuracy_of_kept": sum(kept) / max(1, len(kept))}


def write(path, c):
    """Add the three keys at the end of the metadata; tensor offsets are relative to the data, so they stay."""
    r = gguf.Reader(path)
    if KEYS[0] in r.meta:
        raise SystemExit("%s is calibrated already: export it again first" % path)
    r.at = 4
    version, n_tensors, n_kv = r.take("<IQQ")
    for _ in range(n_kv):
        r.string()
        r.value(r.take("<I")[0])
    end_of_meta = r.at
    for _ in range(n_tensors):
        r.string()
        r.take("<%dQ" % r.take("<I")[0])
        r.take("<IQ")
    align = r.meta.get("general.alignment", 32)
    data = -(-r.at // align) * align
    head = b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_kv + 3) + r.b[24:end_of_meta]
    head += b"".join(kv(k, F32, v) for k, v in zip(KEYS, c)) + r.b[end_of_meta:r.at]
    with open(path + ".tmp", "wb") as f:
        f.write(head + b"\0" * (-len(head) % align) + r.b[data:])
    os.replace(path + ".tmp", path)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", default="../models/sluice-intents.gguf")
    ap.add_argument("--data", default=os.environ.get("SLUICE_TEST_DATA"))
    ap.add_argument("--threshold", type=float, default=0.8, help="confidence below which a request is escalated")
    ap.add_argument("--write", action="store_true", help="store the fit in the model file")
    a = ap.parse_args()
    torch.set_num_threads(2)
    net, tok, _ = gguf.load(a.model)
    x, good, part = collect(net, tok, a.data)
    half = np.random.RandomState(1).permutation(len(good)) % 2 == 0
    conf = np.empty(len(good))
    conf[half] = apply(x[half], fit(x[~half], good[~half]))
    conf[~half] = apply(x[~half], fit(x[half], good[half]))
    c = [float(np.float32(v)) for v in fit(x, good)]
    res = {"fit": dict(zip(("bias", "weight_min", "weight_mean"), c)), "threshold": a.threshold}
    for name, sel in (("all", part != ""), ("clinc150", part == "clinc150"), ("snips", part == "snips")):
        res[name] = {"calibrated": figures(conf[sel], good[sel], a.threshold),
                     "weakest_token": figures(np.exp(x[sel, 0]), good[sel], a.threshold)}
    print(json.dumps(rounded(res), indent=1))
    if a.write:
        if not all(math.isfinite(v) for v in c):
            raise SystemExit("the fit is not finite: nothing written")
        write(a.model, c)


if __name__ == "__main__":
    main()
