# SPDX-License-Identifier: Apache-2.0
"""Measures a GGUF file, as dequantized from the file and in float32; prints every figure that the model card quotes.

--golden FILE also writes reference outputs (token ids and log-probabilities) for the engines' tests.
"""
import argparse
import json
import os
import time

import torch

import gguf
import labels
from prepare import held_back, rows, snips
from tokenizer import EOS

XSID = {"weather/find": {"weather"}, "alarm/set_alarm": {"alarm"}, "PlayMusic": {"play_music"},
        "AddToPlaylist": {"update_playlist"}, "BookRestaurant": {"restaurant_reservation"}, "RateBook": {"rate_book"},
        "SearchCreativeWork": {"search_creative_work"}, "SearchScreeningEvent": {"search_screening_event"},
        "reminder/set_reminder": {"reminder_update"}, "reminder/show_reminders": {"reminder"}}

GOLDEN = [
    "what's the weather in Paris?", "set a timer for ten minutes", "Play some jazz on Spotify", "wake me up at 6:30 am tomorrow",
    "how do you say good morning in Japanese", "call my mom", "text Sarah that I'm running late", "tip for a 54 dollar bill",
    "Book a table for two at an Italian restaurant in Boston tonight", "add this song to my workout playlist",
    "rate the current novel four stars", "what movies are playing at Showcase Cinemas", "hi", "thanks", "yes please",
    "turn off the kitchen lights", "where is my phone", "my credit card was stolen", "how much money is in my checking account",
    "transfer 200 dollars from checking to savings", "what is the capital of Peru", "write a poem about the sea",
    "Remind me to take out the trash at 8 pm", "how many euros is 100 dollars", "how many ounces in a pound", "tell me a joke",
    "flip a coin", "what time is it in Tokyo?", "spell necessary", "how long should I bake a potato",
    "do I need a visa for India", "find me a flight from Dallas to Miami on Friday", "is it going to rain this weekend",
    "what song is this", "who made you", "directions to the nearest gas station", "PLAY BOHEMIAN RHAPSODY BY QUEEN",
    "quiero escuchar música", "Find the TV series The Café of Dreams", "asdf qwerty 12345 !?",
]


def device_batches(tok, texts, limit):
    by_len = {}
    for i, t in enumerate(texts):
        by_len.setdefault(len(tok.prompt(t)), []).append(i)
    for n in sorted(by_len):
        for k in range(0, len(by_len[n]), limit):
            yield by_len[n][k:k + limit]


@torch.no_grad()
def greedy(net, tok, texts, max_new=64, batch=256):
    """Greedy answers: [(token ids, log-probabilities)] with the end token, whole context recomputed never (KV cache)."""
    out = [None] * len(texts)
    context = net.config["context"]
    for idx in device_batches(tok, texts, batch):
        prompts = [tok.prompt(texts[i])[:context - max_new] for i in idx]
        ids, cache = torch.tensor(prompts), [(None, None)] * net.config["layers"]
        toks, lps = [[] for _ in idx], [[] for _ in idx]
        live = torch.ones(len(idx), dtype=torch.bool)
        for _ in range(max_new):
            lp = net.logits(net(ids, cache)[:, -1]).log_softmax(-1)
            best, arg = lp.max(-1)
            for k in range(len(idx)):
                if live[k]:
                    toks[k].append(int(arg[k]))
                    lps[k].append(float(best[k]))
            live &= arg != EOS
            if not live.any():
                break
            ids = arg[:, None]
        for k, i in enumerate(idx):
            out[i] = (toks[k], lps[k])
    return out


def parse(tok, ids):
    """-> (intent, slots or None where the text is no JSON object)"""
    text = tok.decode(ids)
    try:
        d = json.loads(text)
        return d.get("intent"), {k: v for k, v in d.items() if k != "intent"}
    except ValueError:
        p = tok.pieces[ids[0] - tok.n_text] if ids[0] >= tok.n_text else ""
        return (p[len('{"intent":"'):] if p.startswith('{"intent":"') else None), None


def auroc(score, good):
    pairs = sorted(zip(score, good))
    rank, n1, i = 0.0, sum(good), 0
    while i < len(pairs):
        j = i
        while j < len(pairs) and pairs[j][0] == pairs[i][0]:
            j += 1
        rank += (i + 1 + j) / 2 * sum(g for _, g in pairs[i:j])
        i = j
    n0 = len(good) - n1
    return (rank - n1 * (n1 + 1) / 2) / (n1 * n0) if n1 and n0 else float("nan")


def ece(conf, good, bins=15):
    """Expected calibration error over bins of equal mass."""
    pairs, n, e = sorted(zip(conf, good)), len(conf), 0.0
    for b in range(bins):
        part = pairs[b * n // bins:(b + 1) * n // bins]
        if part:
            e += abs(sum(c for c, _ in part) - sum(g for _, g in part)) / n
    return e


def risks(conf, good):
    order = sorted(zip(conf, good), reverse=True)
    return {"%d%%" % c: 1 - sum(g for _, g in order[:len(order) * c // 100]) / (len(order) * c // 100) for c in (80, 90, 95)}


def confidence(conf, good):
    r = [c for c, g in zip(conf, good) if g]
    w = [c for c, g in zip(conf, good) if not g]
    return {"auroc_right_wrong": auroc(conf, good), "mean_right": sum(r) / len(r), "mean_wrong": sum(w) / max(1, len(w)),
            "ece": ece(conf, good), "risk_at_coverage": risks(conf, good)}


def intents(net, tok, data):
    val, oos = rows(data, "clinc150.val"), rows(data, "clinc150.oos_val")
    got = greedy(net, tok, [r["text"] for r in val + oos])
    said = [parse(tok, g[0]) for g in got]
    p_int = [torch.tensor(g[1][0]).exp().item() for g in got]
    p_min = [torch.tensor(min(g[1])).exp().item() for g in got]
    p_all = [torch.tensor(sum(g[1])).exp().item() for g in got]
    good = [s[0] == r["intent"] for s, r in zip(said, val + oos)]
    n = len(val)
    res = {"in_scope_accuracy": sum(good[:n]) / n, "valid_json": sum(s[1] is not None for s in said) / len(said)}
    for name, p in (("intent_probability", p_int), ("min_token_probability", p_min), ("product_of_probabilities", p_all)):
        thr = sorted(p[:n])[int(0.05 * n)]
        rejected = [q < thr or s[0] == "oos" for q, s in zip(p[n:], said[n:])]
        in_conf = [0.0 if s[0] == "oos" else q for q, s in zip(p, said)]
        res[name] = {"in_scope": confidence(p[:n], good[:n]), "with_oos": confidence(p, good),
                     "threshold_5%_in_scope_rejected": thr, "oos_recall_at_5%_in_scope_rejected": sum(rejected) / len(rejected),
                     "auroc_in_scope_vs_oos": auroc(in_conf, [i < n for i in range(len(in_conf))])}
    res["said_oos"] = {"in_scope": sum(s[0] == "oos" for s in said[:n]) / n, "oos": sum(s[0] == "oos" for s in said[n:]) / len(oos)}
    cased = greedy(net, tok, [typed(r["text"]) for r in val], max_new=1)
    res["in_scope_accuracy_typed"] = sum(parse(tok, g[0])[0] == r["intent"] for g, r in zip(cased, val)) / n
    wrong = {}
    for s, r, g in zip(said, val, good):
        if not g:
            k = "%s>%s" % (r["intent"], s[0])
            wrong[k] = wrong.get(k, 0) + 1
    res["confusions"] = dict(sorted(wrong.items(), key=lambda x: -x[1])[:15])
    return res


def typed(text):
    """The same request as somebody types it: a capital, I, a closing mark."""
    text = (" " + text + " ").replace(" i ", " I ").replace(" i'", " I'").strip()
    question = text.split(" ")[0].split("'")[0] in ("what", "how", "when", "where", "who", "why", "which", "is", "are", "do", "does", "can", "could", "will")
    return text[:1].upper() + text[1:] + ("" if text[-1:] in ".?!" else "?" if question else ".")


def slots(net, tok, data):
    test = [snips(r) for r in rows(data, "snips.train") if held_back(r["text"]) and '"' not in r["text"] and "\\" not in r["text"]]
    res, per = {"requests": len(test)}, {}
    for variant, change in (("as_written", lambda t: t.rstrip()), ("lower_case", lambda t: t.rstrip().lower())):
        got = greedy(net, tok, [change(r["text"]) for r in test])
        tp = n_gold = n_said = exact = right = 0
        prob, good = [], []
        for g, r in zip(got, test):
            intent, said = parse(tok, g[0])
            gold = {s["name"]: change(r["text"])[s["start"]:s["end"]] for s in r["slots"]}
            hit = sum(1 for k, v in (said or {}).items() if gold.get(k) == v)
            tp, n_gold, n_said = tp + hit, n_gold + len(gold), n_said + len(said or {})
            ok = intent == r["intent"] and said == gold
            exact, right = exact + ok, right + (intent == r["intent"])
            prob.append(torch.tensor(min(g[1])).exp().item())
            good.append(ok)
            k = per.setdefault(r["intent"], [0, 0])
            k[0] += ok
            k[1] += 1
        res[variant] = {"intent_accuracy": right / len(test), "exact_match": exact / len(test), "slot_f1": 2 * tp / (n_gold + n_said),
                        "min_probability": confidence(prob, good)}
    res["exact_match_by_intent"] = {k: v[0] / v[1] for k, v in sorted(per.items())}
    return res


def checks(net, tok, data, threshold):
    """Sets that nothing was trained or chosen on."""
    x = [r for r in rows(data, "xsid.valid") if r.get("lang") == "en" and r["intent"] in XSID]
    got = [parse(tok, g[0])[0] for g in greedy(net, tok, [r["text"] for r in x], max_new=1)]
    trec = rows(data, "ood.trec")
    far = greedy(net, tok, [r["text"] for r in trec], max_new=1)
    return {"xsid_en_intent_accuracy": sum(g in XSID[r["intent"]] for g, r in zip(got, x)) / len(x), "xsid_en_requests": len(x),
            "trec_oos_or_below_threshold": sum(parse(tok, g[0])[0] == "oos" or torch.tensor(g[1][0]).exp().item() < threshold
                                               for g in far) / len(far)}


def golden(net, tok, path):
    out = []
    for t in GOLDEN:
        ids, lps = greedy(net, tok, [t])[0]
        out.append({"text": t, "prompt": tok.prompt(t), "output": ids, "logprobs": [round(v, 6) for v in lps], "answer": tok.decode(ids)})
    with open(path + ".tmp", "w", encoding="utf-8") as f:
        f.write("[\n" + ",\n".join(json.dumps(o, ensure_ascii=False) for o in out) + "\n]\n")
    os.replace(path + ".tmp", path)
    return out


def rounded(x):
    return {k: rounded(v) for k, v in x.items()} if isinstance(x, dict) else round(x, 4) if isinstance(x, float) else x


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--model", default="../models/sluice-intents.gguf")
    ap.add_argument("--data", default=os.environ.get("SLUICE_TEST_DATA"))
    ap.add_argument("--golden", help="write the reference outputs here")
    ap.add_argument("--golden-only", action="store_true")
    ap.add_argument("--json", action="store_true", help="one line of JSON")
    ap.add_argument("--ask", nargs="*", help="answer these requests and stop")
    a = ap.parse_args()
    torch.set_num_threads(2)
    t0 = time.time()
    net, tok, meta = gguf.load(a.model)
    if a.ask is not None:
        for t in a.ask:
            ids, lps = greedy(net, tok, [t])[0]
            print("%s\n    %s  %s" % (t, tok.decode(ids), [round(torch.tensor(p).exp().item(), 3) for p in lps]))
        return
    if a.golden:
        golden(net, tok, a.golden)
        if a.golden_only:
            return
    res = {"model": {"bytes": os.path.getsize(a.model), "parameters": sum(p.numel() for p in net.parameters()),
                     "layers": net.config["layers"], "dim": net.config["dim"], "vocabulary": len(tok.tokens)}}
    res["clinc150_val"] = intents(net, tok, a.data)
    res["snips_held_back"] = slots(net, tok, a.data)
    res["checks"] = checks(net, tok, a.data, res["clinc150_val"]["intent_probability"]["threshold_5%_in_scope_rejected"])
    res["seconds"] = time.time() - t0
    print(json.dumps(rounded(res)) if a.json else json.dumps(rounded(res), indent=1))


if __name__ == "__main__":
    main()
