# SPDX-License-Identifier: Apache-2.0
"""Two minutes of nothing but copying, between the two runs of train.py (see README.md).

Short requests of made-up words, answered by spans of them.  Mixed with real data from the start, the network does not find the trick in an hour; alone, at a
high learning rate and on short requests, it finds it in about 200 steps (the loss falls from 6.1 to 0.2 in 225), and keeps it
when real data come back.
"""
import argparse
import os
import random
import time

import torch
import torch.nn.functional as F

from model import Llama
from tokenizer import Tokenizer
from train import copy_batch


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--work", default="build")
    ap.add_argument("--init", default="build/model.pt")
    ap.add_argument("--out", default="build/copying.pt")
    ap.add_argument("--minutes", type=float, default=2)
    ap.add_argument("--lr", type=float, default=2e-3)
    ap.add_argument("--batch", type=int, default=96)
    ap.add_argument("--device", default="cpu")
    a = ap.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(3)
    rng = random.Random(5)
    tok = Tokenizer.load(os.path.join(a.work, "tokenizer.json"))
    start = torch.load(a.init, map_location="cpu")
    c = start["config"]
    model = Llama(len(tok.tokens), {k: c[k] for k in ("dim", "layers", "heads", "kv_heads", "ffn")})
    model.load_state_dict(start["model"])
    model.to(a.device).train()
    opt = torch.optim.AdamW(model.parameters(), lr=a.lr, betas=(0.9, 0.98), weight_decay=0.02)
    t0, step, done, mean = time.time(), 0, 0.0, None
    while done < 1:
        for g in opt.param_groups:
            g["lr"] = a.lr * min(1, (step + 1) / 40) * (1 if done < 0.8 else max(0.2, (1 - done) / 0.2))
        ids, certain = copy_batch(tok, rng, a.batch, (3, 7), (1, 2), (2, 3, 4), (0,))
        with torch.autocast(a.device, dtype=torch.bfloat16):
            h = model(ids.to(a.device)).reshape(-1, c["dim"])[certain]
            target = ids.reshape(-1)[[j + 1 for j in certain]].to(a.device)
            loss = F.cross_entropy(model.logits(h).float(), target)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        step += 1
        done = (time.time() - t0) / 60 / a.minutes
        mean = loss.item() if mean is None else 0.95 * mean + 0.05 * loss.item()
        if step % 25 == 0:
            print("step %d loss %.3f %.0f s" % (step, mean, time.time() - t0), flush=True)
    torch.save({"model": model.state_dict(), "config": c}, a.out)


if __name__ == "__main__":
    main()
