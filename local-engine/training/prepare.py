# SPDX-License-Identifier: Apache-2.0
"""Reads the public intent data, maps it on to one label space, splits SNIPS and trains the tokenizer.

Writes to --work: tokenizer.json, train.jsonl, val.jsonl, oos_val.jsonl, snips_test.jsonl, labels.json
"""
import argparse
import collections
import hashlib
import json
import os
import random

import labels
import templates
from augment import segments
from tokenizer import Tokenizer, learn_merges, split_words


def rows(data, name):
    with open(os.path.join(data, "intents", name + ".jsonl"), encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def held_back(text, percent=10):
    return int(hashlib.sha256(text.strip().lower().encode()).hexdigest(), 16) % 100 < percent


def snips(r):
    slots, seen = [], set()
    for s in sorted(r["slots"], key=lambda s: s["start"]):
        value = r["text"][s["start"]:s["end"]]
        lead = len(value) - len(value.lstrip())
        name = labels.SNIPS_SLOTS.get(s["name"], s["name"])
        if name in seen or not value.strip():
            continue
        seen.add(name)
        slots.append({"start": s["start"] + lead, "end": s["start"] + lead + len(value.strip()), "name": name})
    return {"src": "snips", "text": r["text"], "intent": labels.SNIPS_INTENTS[r["intent"]], "slots": slots, "full": True}


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--data", default=os.environ.get("SLUICE_TEST_DATA"), help="folder that holds intents/")
    ap.add_argument("--work", default="build")
    ap.add_argument("--merges", type=int, default=4000)
    ap.add_argument("--templates", type=int, default=600, help="templated requests per intent")
    ap.add_argument("--oos-templates", type=int, default=6000)
    a = ap.parse_args()
    os.makedirs(a.work, exist_ok=True)

    clinc, val = rows(a.data, "clinc150.train"), rows(a.data, "clinc150.val")
    train, test = [], []
    for r in rows(a.data, "snips.train"):
        if '"' in r["text"] or "\\" in r["text"]:
            continue
        (test if held_back(r["text"]) else train).append(snips(r))
    own = templates.generate(a.templates, random.Random(11), {labels.OOS: a.oos_templates})
    # A request without slot labels of an intent that has slots teaches the intent alone ("full" false).
    slotted = {r["intent"] for r in train + own if r["slots"]}
    for r in clinc:
        if '"' in r["text"] and r["intent"] in slotted:
            r["text"] = r["text"].replace('"', "")
        train.append({"src": "clinc", "text": r["text"], "intent": r["intent"], "slots": [],
                      "full": r["intent"] not in slotted})
    train += own
    for name, n in (("hwu64", "hwu64.train"), ("banking77", "banking77.train")):
        train += [{"src": name, "text": r["text"], "intent": r["intent"], "slots": [], "full": False} for r in rows(a.data, n)]
    for r in rows(a.data, "hwu64.train"):
        intent = labels.HWU_SAME.get(r["intent"], labels.OOS if r["intent"] in labels.HWU_OUT else None)
        if intent:
            train.append({"src": "mapped" if intent != labels.OOS else "mapped_oos", "text": r["text"], "intent": intent, "slots": [],
                          "full": intent not in slotted})
    for n in ("clinc150.oos_train", "ood.self-instruct"):
        train += [{"src": "oos", "text": r["text"][:400], "intent": labels.OOS, "slots": [], "full": True} for r in rows(a.data, n)]

    intents = sorted({r["intent"] for r in train if r["src"] not in ("hwu64", "banking77")})
    slots = sorted({s["name"] for r in train for s in r["slots"]})
    pieces = [labels.intent_piece(i) for i in intents] + [labels.slot_piece(s) for s in slots] + [labels.CLOSE]

    counts = collections.Counter()
    for r in train:
        weight = 1 if r["src"] in ("own", "slots") else 2
        for w in split_words(r["text"]):
            w = w.strip()
            if w:
                counts[w] += weight
                counts[w.lower()] += 2 * weight
                counts[w.lower().capitalize()] += weight
    tok = Tokenizer(learn_merges(counts, a.merges), pieces)
    tok.save(os.path.join(a.work, "tokenizer.json"))
    json.dump({"intents": intents, "slots": slots,
               "hwu64": sorted({r["intent"] for r in train if r["src"] == "hwu64"}),
               "banking77": sorted({r["intent"] for r in train if r["src"] == "banking77"})},
              open(os.path.join(a.work, "labels.json"), "w"))

    def write(name, rs):
        with open(os.path.join(a.work, name), "w", encoding="utf-8") as f:
            for r in rs:
                f.write(json.dumps(r, ensure_ascii=False) + "\n")
    for r in train:
        text, spans = r.pop("text"), r.pop("slots")
        if "segs" not in r:
            r["segs"] = segments(text, spans)
    write("train.jsonl", train)
    write("val.jsonl", val)
    write("oos_val.jsonl", rows(a.data, "clinc150.oos_val"))
    write("snips_test.jsonl", test)
    n = sum(len(tok.prompt(r["text"])) for r in val) / len(val)
    print("train %s; val %d; snips test %d; intents %d; slots %d; vocabulary %d; %.1f prompt tokens a request" % (
        dict(collections.Counter(r["src"] for r in train)), len(val), len(test), len(intents), len(slots), len(tok.tokens), n))


if __name__ == "__main__":
    main()
