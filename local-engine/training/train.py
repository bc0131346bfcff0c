# SPDX-License-Identifier: Apache-2.0
"""Trains the network on the prepared data; resumable. The best way to run it is in README.md."""
import argparse
import copy
import json
import math
import os
import random
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

import labels
from augment import augment
from model import Llama
from tokenizer import EOS, Tokenizer


def read(work, name):
    with open(os.path.join(work, name), encoding="utf-8") as f:
        return [json.loads(line) for line in f]


class Data:
    """Draws augmented, tokenised batches of similar length."""

    def __init__(self, work, tok, a):
        self.tok, self.a = tok, a
        lab = json.load(open(os.path.join(work, "labels.json")))
        self.intents = lab["intents"]
        self.iid = {n: i for i, n in enumerate(self.intents)}
        self.aux = {s: {n: i for i, n in enumerate(lab[s])} for s in ("hwu64", "banking77")}
        self.rows = read(work, "train.jsonl")
        for i, r in enumerate(self.rows):
            r["i"] = i
        self.values, bag = {}, []
        for r in self.rows:
            for t, s in r["segs"]:
                bag += t.lower().replace('"', "").replace("\\", "").split()
                if s and '"' not in t and r["src"] in ("snips", "slots"):
                    self.values.setdefault(s, []).append(t)
        self.bag = sorted(bag)
        self.by_src = {}
        for r in self.rows:
            self.by_src.setdefault(r["src"], []).append(r)
        self.weight = dict(kv.split("=") for kv in a.mix.split(",")) if a.mix else {}

    def encode(self, r, rng):
        a = self.a
        segs = augment(r["segs"], rng, self.bag, self.values if r["src"] in ("snips", "slots") else None,
                       p_drop=a.drop_words, p_swap=a.swap_words, p_typo=a.typos)
        text = "".join(s[0] for s in segs)
        ids = self.tok.prompt(text)[: a.max_prompt]
        ids[-1] = 2
        n = len(ids)
        if r["src"] in self.aux:
            return ids, n, -1, r, text
        ans = labels.answer(self.tok, r["intent"], [(s[1], s[0]) for s in segs if s[1]])
        ids = ids + (ans if r["full"] else ans[:1])
        return ids, n, self.iid[r["intent"]], r, text

    def epoch(self, seed):
        rng = random.Random(seed)
        rows = []
        for s, rs in sorted(self.by_src.items()):
            w = float(self.weight.get(s, 1))
            rows += rs * int(w) + rng.sample(rs, int(len(rs) * (w - int(w))))
        rng.shuffle(rows)
        self.n = len(rows)
        chunk = self.a.batch * 40
        for c in range(0, len(rows), chunk):
            ex = [self.encode(r, rng) for r in rows[c:c + chunk]]
            ex.sort(key=lambda e: len(e[0]))
            batches = [ex[i:i + self.a.batch] for i in range(0, len(ex), self.a.batch)]
            rng.shuffle(batches)
            yield from batches

    def tensors(self, ex, rng):
        T = max(len(e[0]) for e in ex)
        ids = torch.full((len(ex), T), EOS)
        at, intent, index, aux, lm, ans = [], [], [], {"hwu64": ([], []), "banking77": ([], [])}, [], []
        for i, (x, n, y, r, _) in enumerate(ex):
            ids[i, : len(x)] = torch.tensor(x)
            at.append(i * T + n - 1)
            intent.append(y)
            index.append(r["i"])
            if y < 0:
                aux[r["src"]][0].append(i)
                aux[r["src"]][1].append(self.aux[r["src"]][r["intent"]])
            lm += [i * T + j for j in range(0, n - 2) if rng.random() < self.a.lm_share]
            ans += [i * T + j for j in range(n, len(x) - 1)]
        return ids, torch.tensor(at), torch.tensor(intent), torch.tensor(index), aux, lm, ans


def copy_batch(tok, rng, n, words_in_all=(5, 12), tokens_in_word=(1, 1, 2, 2, 3, 4), words_in_value=(1, 1, 2, 3), gaps=(0, 1, 1, 2)):
    """Requests of made-up words whose answers copy spans of them: what teaches the network to look a value up rather than to
    guess it.  -> ids [n, T], positions whose next token is certain."""
    space = tok.encode(" ")[0]
    text_tokens = range(3, tok.n_text)
    intents = [i for p, i in tok.piece_ids.items() if p.startswith('{"intent":"')]
    slots = [i for p, i in tok.piece_ids.items() if p.startswith('","')]
    close = tok.piece_ids[labels.CLOSE]
    rows, certain = [], []
    for _ in range(n):
        words = [[rng.choice(text_tokens) for _ in range(rng.choice(tokens_in_word))] for _ in range(rng.randint(*words_in_all))]
        ids = [0]
        for k, w in enumerate(words):
            ids += ([space] if k else []) + w
        ids += [2, rng.choice(intents)]
        ok = []
        at = 0
        while at < len(words) and len(ids) < 100:
            end = min(len(words), at + rng.choice(words_in_value))
            ids.append(rng.choice(slots))
            for k in range(at, end):
                value = ([space] if k > at else []) + words[k]
                # the first token of a value is the network's choice; from there on the request decides
                ok += range(len(ids) - (1 if k > at else 0), len(ids) + len(value) - 1)
                ids += value
            at = end + rng.choice(gaps)
        rows.append(ids + [close, EOS])
        certain.append(ok)
    T = max(map(len, rows))
    out = torch.full((n, T), EOS)
    flat = []
    for i, (ids, ok) in enumerate(zip(rows, certain)):
        out[i, : len(ids)] = torch.tensor(ids)
        flat += [i * T + j for j in ok]
    return out, flat


@torch.no_grad()
def accuracy(model, tok, rows, first, n, device, batch=250):
    """The probabilities of the n intents, whose first token id is first, for each text in rows: [N, n]."""
    model.eval()
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    out = torch.zeros(len(rows), n)
    for c in range(0, len(rows), batch):
        idx = order[c:c + batch]
        enc = [tok.prompt(rows[i]) for i in idx]
        T = max(map(len, enc))
        ids = torch.full((len(idx), T), EOS)
        for k, e in enumerate(enc):
            ids[k, : len(e)] = torch.tensor(e)
        with torch.autocast(device, dtype=torch.bfloat16):
            h = model(ids.to(device))
        h = h[torch.arange(len(idx)), torch.tensor([len(e) - 1 for e in enc])].float()
        p = model.logits(h).softmax(-1)[:, first:first + n].cpu()
        out[torch.tensor(idx)] = p
    model.train()
    return out


def auroc(score, good):
    s, order = torch.sort(score)
    rank = torch.empty_like(s)
    rank[order] = torch.arange(1, len(s) + 1, dtype=s.dtype)
    n1 = good.sum()
    n0 = len(good) - n1
    return float((rank[good].sum() - n1 * (n1 + 1) / 2) / (n1 * n0)) if n0 else 1.0


def report(p, val, oos, iid):
    """p: [val + oos, intents] -> accuracy and how well the probability tells right from wrong."""
    y = torch.tensor([iid[r["intent"]] for r in val + oos])
    conf, pred = p.double().max(-1)
    ok, n = pred == y, len(val)
    thr = conf[:n].sort().values[int(0.05 * n)]
    o = iid["oos"]
    rej = ((conf[n:] < thr) | (pred[n:] == o)).float().mean()
    fp_oos = (pred[:n] == o).float().mean()
    return "acc %.2f conf %.3f auroc in %.3f all %.3f oos-recall@5%% %.2f (oos said %.2f, false oos %.3f)" % (
        100 * ok[:n].float().mean(), conf[:n].mean(), auroc(conf[:n], ok[:n]), auroc(conf, ok), rej,
        (pred[n:] == o).float().mean(), fp_oos)


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--work", default="build")
    ap.add_argument("--out", default="build/model.pt")
    ap.add_argument("--epochs", type=float, default=14)
    ap.add_argument("--batch", type=int, default=160)
    ap.add_argument("--lr", type=float, default=2e-3)
    ap.add_argument("--wd", type=float, default=0.1)
    ap.add_argument("--warmup", type=int, default=300)
    ap.add_argument("--dropout", type=float, default=0.1)
    ap.add_argument("--smooth", type=float, default=0.05)
    ap.add_argument("--lm", type=float, default=0.3, help="weight of the language-model loss on the request")
    ap.add_argument("--lm-share", type=float, default=0.25)
    ap.add_argument("--aux", type=float, default=0.5)
    ap.add_argument("--ema", type=float, default=0.999)
    ap.add_argument("--mix", default="clinc=2,snips=0.8,slots=0.25,own=0.2,own_oos=0.15,mapped=0.5,mapped_oos=0.25,hwu64=0.2,banking77=0.2",
                    help="repeats of each source in an epoch, such as clinc=2,banking77=0.5")
    ap.add_argument("--drop-words", type=float, default=0.08)
    ap.add_argument("--swap-words", type=float, default=0.02)
    ap.add_argument("--typos", type=float, default=0.02)
    ap.add_argument("--max-prompt", type=int, default=120)
    ap.add_argument("--dim", type=int, default=256)
    ap.add_argument("--layers", type=int, default=6)
    ap.add_argument("--heads", type=int, default=8)
    ap.add_argument("--kv-heads", type=int, default=4)
    ap.add_argument("--ffn", type=int, default=768)
    ap.add_argument("--teacher", help="file of soft labels (see teacher.py)")
    ap.add_argument("--distil", type=float, default=0.3, help="weight of the teacher's soft labels")
    ap.add_argument("--copy", type=float, default=0.0, help="weight of the copying exercise")
    ap.add_argument("--copy-rows", type=int, default=64, help="made-up requests in each step")
    ap.add_argument("--minutes", type=float, default=0, help="wall-clock cap: the learning rate follows whichever is further, steps or time")
    ap.add_argument("--init", help="start from these weights")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--device", default="cpu")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--eval-every", type=float, default=2)
    ap.add_argument("--resume", action="store_true")
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    os.makedirs(os.path.dirname(a.out) or ".", exist_ok=True)

    tok = Tokenizer.load(os.path.join(a.work, "tokenizer.json"))
    data = Data(a.work, tok, a)
    first, n_int = tok.piece_ids[labels.intent_piece(data.intents[0])], len(data.intents)
    teacher = torch.load(a.teacher) if a.teacher else None
    val, oos = read(a.work, "val.jsonl"), read(a.work, "oos_val.jsonl")
    model = Llama(len(tok.tokens), dict(dim=a.dim, layers=a.layers, heads=a.heads, kv_heads=a.kv_heads, ffn=a.ffn), a.dropout)
    heads = nn.ModuleDict({k: nn.Linear(a.dim, len(v)) for k, v in data.aux.items()})
    if a.init:
        model.load_state_dict(torch.load(a.init, map_location="cpu")["model"])
    model.to(a.device)
    heads.to(a.device)
    decay = [p for p in model.parameters() if p.dim() == 2]
    rest = [p for p in list(model.parameters()) + list(heads.parameters()) if not (p.dim() == 2 and any(p is q for q in decay))]
    opt = torch.optim.AdamW([{"params": decay, "weight_decay": a.wd}, {"params": rest, "weight_decay": 0.0}],
                            lr=a.lr, betas=(0.9, 0.98), eps=1e-8)
    ema = copy.deepcopy(model)
    for p in ema.parameters():
        p.requires_grad_(False)
    n_rows = sum(int(len(rs) * float(data.weight.get(s, 1))) for s, rs in data.by_src.items())
    total = int(a.epochs * math.ceil(n_rows / a.batch))
    step, epoch, t_used = 0, 0, 0.0
    if a.resume and os.path.exists(a.out + ".state"):
        st = torch.load(a.out + ".state", map_location="cpu")
        model.load_state_dict(st["model"])
        ema.load_state_dict(st["ema"])
        heads.load_state_dict(st["heads"])
        opt.load_state_dict(st["opt"])
        step, epoch, t_used = st["step"], st["epoch"], st["seconds"]
        torch.set_rng_state(st["rng"])
    print("parameters %.2f M, %d rows an epoch, %d steps" % (sum(p.numel() for p in model.parameters()) / 1e6, n_rows, total), flush=True)
    texts = [r["text"] for r in val + oos]
    cased = [t[:1].upper() + t[1:].replace(" i ", " I ") + "?" for t in texts]
    t0, run, n_eval = time.time() - t_used, {}, epoch
    model.train()
    done = step / total
    while done < 1:
        rng = random.Random(a.seed * 1000 + epoch)
        for ex in data.epoch(a.seed * 1000 + epoch):
            done = max(step / total, (time.time() - t0) / 60 / a.minutes if a.minutes else 0)
            if done >= 1:
                break
            lr = a.lr * min(1, (step + 1) / a.warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
            for g in opt.param_groups:
                g["lr"] = lr
            ids, at, intent, index, aux, lm, ans = data.tensors(ex, rng)
            ids, at, intent = ids.to(a.device), at.to(a.device), intent.to(a.device)
            with torch.autocast(a.device, dtype=torch.bfloat16):
                h = model(ids).reshape(-1, a.dim)
                hi = h[at]
                li = model.logits(hi).float()
                loss_aux = 0.0
                for k, (rows, ys) in aux.items():
                    if rows:
                        loss_aux = loss_aux + F.cross_entropy(heads[k](hi[rows]).float(), torch.tensor(ys, device=a.device),
                                                              reduction="sum") / len(ex)
                flat = ids.reshape(-1)
                loss_lm = F.cross_entropy(model.logits(h[lm]).float(), flat[[j + 1 for j in lm]]) if lm else 0.0
                loss_ans = F.cross_entropy(model.logits(h[ans]).float(), flat[[j + 1 for j in ans]]) if ans else 0.0
            m = intent >= 0
            lp = li[m].log_softmax(-1)
            target = torch.full_like(lp[:, first:first + n_int], a.smooth / n_int)
            target[torch.arange(len(target)), intent[m]] += 1 - a.smooth
            if teacher is not None:
                soft = teacher[index[m.cpu()]].to(a.device).float()
                share = a.distil * soft.sum(-1, keepdim=True)            # rows without a teacher are all zero
                target = (1 - share) * target + a.distil * soft
            loss_int = -(target * lp[:, first:first + n_int]).sum(-1).sum() / len(ex)
            loss_copy = 0.0
            if a.copy:
                made, certain = copy_batch(tok, rng, a.copy_rows)
                with torch.autocast(a.device, dtype=torch.bfloat16):
                    hc = model(made.to(a.device)).reshape(-1, a.dim)
                    flat_made = made.reshape(-1)
                    loss_copy = F.cross_entropy(model.logits(hc[certain]).float(), flat_made[[j + 1 for j in certain]].to(a.device))
            loss = loss_int + a.lm * loss_lm + loss_ans + a.aux * loss_aux + a.copy * loss_copy
            opt.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            opt.step()
            d = min(a.ema, (1 + step) / (10 + step))
            with torch.no_grad():
                for p, q in zip(ema.parameters(), model.parameters()):
                    p.lerp_(q, 1 - d)
            step += 1
            for k, v in (("int", loss_int), ("lm", loss_lm), ("ans", loss_ans), ("aux", loss_aux), ("copy", loss_copy)):
                run[k] = 0.98 * run.get(k, float(v)) + 0.02 * float(v)
            if step % 100 == 0:
                print("step %d epoch %d lr %.5f %s %.0f s" % (step, epoch, lr, {k: round(v, 3) for k, v in run.items()}, time.time() - t0), flush=True)
        epoch += 1
        if epoch >= n_eval + a.eval_every or done >= 1 or step >= total:
            n_eval = epoch
            for name, tx in (("plain", texts), ("cased", cased)):
                p = accuracy(ema, tok, tx, first, n_int, a.device)
                print("epoch %d %s: %s" % (epoch, name, report(p, val, oos, data.iid)), flush=True)
        done = max(done, step / total)
        torch.save({"model": model.state_dict(), "ema": ema.state_dict(), "heads": heads.state_dict(), "opt": opt.state_dict(),
                    "step": step, "epoch": epoch, "seconds": time.time() - t0, "rng": torch.get_rng_state()}, a.out + ".state.tmp")
        os.replace(a.out + ".state.tmp", a.out + ".state")
    torch.save({"model": ema.state_dict(), "config": model.config, "args": vars(a)}, a.out)


if __name__ == "__main__":
    main()
