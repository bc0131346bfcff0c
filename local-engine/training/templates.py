# SPDX-License-Identifier: Apache-2.0
"""Expands templates.txt (our own wording, with slots) into requests.

(a|b|) picks one; <list> fills in a list's item; {slot=list} fills one in and labels it; {slot:text} labels what the
text expands to. Lists are the lines "@name: a | b"; ~ is an empty item.
"""
import os
import re

FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "templates.txt")


# N: noun phrases ("my credit score"), V: commands ("pay my bill"), Q: indirect questions ("when my bill is due")
FRAMES = {"N": ["<np> (%s) <pls>", "(%s) <pls>"], "V": ["<vp> (%s) <pls>"], "Q": ["<iq> (%s) <pls>"]}


def read(path=FILE):
    lists, groups, at = {}, {}, None
    with open(path, encoding="utf-8") as f:
        for line in f:
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            if line.startswith("@"):
                name, items = line[1:].split(":", 1)
                lists.setdefault(name.strip(), []).extend(x.strip().replace("~", "") for x in items.split(" | "))
            elif line.startswith("["):
                at = groups.setdefault(line[1:-1], [])
            elif line[1:3] == ": ":
                at += [frame % line[3:] for frame in FRAMES[line[0]]]
            else:
                at.append(line)
    return lists, groups


def _split(s):
    parts, depth, cur = [], 0, ""
    for c in s:
        depth += c in "({"
        depth -= c in ")}"
        if c == "|" and depth == 0:
            parts.append(cur)
            cur = ""
        else:
            cur += c
    return parts + [cur]


def _close(s, i):
    depth = 0
    for j in range(i, len(s)):
        depth += s[j] in "({"
        depth -= s[j] in ")}"
        if depth == 0:
            return j
    raise ValueError("unbalanced: " + s)


def expand(s, lists, rng):
    """-> [[text, slot or None], ...]"""
    out, i = [], 0
    while i < len(s):
        if s[i] == "(":
            j = _close(s, i)
            out += expand(rng.choice(_split(s[i + 1:j])), lists, rng)
        elif s[i] == "<":
            j = s.index(">", i)
            out += expand(rng.choice(lists[s[i + 1:j]]), lists, rng)
        elif s[i] == "{":
            j = _close(s, i)
            m = re.match(r"(\w+)([=:])(.*)$", s[i + 1:j], re.S)
            inner = expand("<%s>" % m[3] if m[2] == "=" else m[3], lists, rng)
            out.append(["".join(x[0] for x in inner), m[1]])
        else:
            j = i
            while j + 1 < len(s) and s[j + 1] not in "(<{":
                j += 1
            out.append([s[i:j + 1], None])
        i = j + 1
    return out


def tidy(segs):
    """Single spaces, none at the ends."""
    out, space = [], True
    for text, slot in segs:
        text = re.sub(r" +", " ", text)
        if slot:
            text = text.strip()
        elif space:
            text = text.lstrip(" ")
        if text:
            out.append([text, slot])
            space = text.endswith(" ")
    if out and not out[-1][1]:
        out[-1][0] = out[-1][0].rstrip()
    return [s for s in out if s[0]]


def generate(n, rng, special={}):
    """Up to n different requests of each intent: rows with src, intent, text, slots, full."""
    lists, groups = read()
    rows = []
    for intent in sorted(groups):
        seen, n_here, slotted = set(), special.get(intent, n), any("{" in t for t in groups[intent])
        for k in range(4 * n_here):
            if len(seen) >= n_here:
                break
            segs = tidy(expand(rng.choice(groups[intent]), lists, rng))
            text = "".join(s[0] for s in segs)
            names = [s[1] for s in segs if s[1]]
            if not text or text in seen or len(set(names)) < len(names):
                continue
            seen.add(text)
            rows.append({"src": "own_oos" if intent == "oos" else "slots" if slotted else "own", "intent": intent,
                         "text": text, "segs": segs, "slots": [{"name": x} for x in names], "full": True})
    return rows
