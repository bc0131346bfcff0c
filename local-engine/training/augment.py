# SPDX-License-Identifier: Apache-2.0
"""Label- and span-preserving changes of a request, drawn anew in every epoch.

A request is a list of segments [text, slot or None]; joined by nothing they are the text.
"""

LEAD = ["please", "hey", "hi", "ok", "okay", "so", "um", "uh", "well", "hello", "yo", "now", "and", "also", "quick question",
        "hey there", "can you", "could you", "would you", "can you please", "could you please", "i need you to",
        "i want you to", "i'd like you to", "please can you", "help me", "excuse me", "tell me", "hey assistant",
        "assistant", "computer", "hey ai", "ai", "listen", "alright", "sorry but", "i was wondering", "do me a favor and"]
TAIL = ["please", "thanks", "thank you", "for me", "for me please", "right now", "now", "if you can", "ok", "will you",
        "can you", "would you", "asap", "when you get a chance", "if you don't mind", "today"]
QUESTION = {"what", "what's", "whats", "how", "how's", "when", "when's", "where", "where's", "who", "who's", "why", "which",
            "is", "are", "am", "do", "does", "did", "can", "could", "will", "would", "should", "has", "have", "may", "was"}
CONTRACTED = [("what is", "what's"), ("i am", "i'm"), ("i would", "i'd"), ("do not", "don't"), ("can not", "can't"),
              ("it is", "it's"), ("how is", "how's"), ("where is", "where's"), ("who is", "who's"), ("i have", "i've"),
              ("does not", "doesn't"), ("will not", "won't"), ("i will", "i'll"), ("when is", "when's"),
              ("want to", "wanna"), ("going to", "gonna"), ("you are", "you're"), ("let us", "let's"), ("is not", "isn't")]


def segments(text, slots):
    out, at = [], 0
    for s in sorted(slots, key=lambda s: s["start"]):
        if s["start"] < at:
            continue
        if s["start"] > at:
            out.append([text[at:s["start"]], None])
        out.append([text[s["start"]:s["end"]], s["name"]])
        at = s["end"]
    if at < len(text):
        out.append([text[at:], None])
    return out


def _typo(w, rng):
    if len(w) < 4:
        return w
    i = rng.randrange(1, len(w) - 1)
    k = rng.random()
    if k < 0.35:
        return w[:i] + w[i + 1] + w[i] + w[i + 2:]
    if k < 0.7:
        return w[:i] + w[i + 1:]
    if k < 0.85:
        return w[:i] + w[i] + w[i:]
    return w[:i] + rng.choice("abcdefghijklmnopqrstuvwxyz") + w[i + 1:]


def _invented(rng):
    w = "".join(rng.choice("bcdfghjklmnprstvwyz") + rng.choice("aeiou") + rng.choice(["", "", "n", "r", "s", "l"])
                for _ in range(rng.randint(1, 4)))
    return w if rng.random() < 0.7 else w.capitalize()


def _words(text, rng, p_drop, p_swap, p_typo, bag):
    """Drops, replaces, misspells and moves single words of a text outside the slots (spaces at the ends are kept)."""
    head = text[: len(text) - len(text.lstrip())]
    tail = text[len(text.rstrip()):] if text.strip() else ""
    out = []
    for w in text.split():
        r = rng.random()
        if r < p_drop:
            continue
        if r < p_drop + p_swap:
            w = rng.choice(bag)
        elif r < p_drop + p_swap + p_typo:
            w = _typo(w, rng)
        out.append(w)
    if len(out) > 2 and rng.random() < p_drop:
        i = rng.randrange(len(out) - 1)
        out[i], out[i + 1] = out[i + 1], out[i]
    return head + " ".join(out) + tail if out else (head or tail)


def _contract(text, rng):
    for a, b in CONTRACTED:
        if rng.random() < 0.3:
            if (a + " ") in text:
                text = text.replace(a + " ", b + " ", 1)
            elif (b + " ") in text:
                text = text.replace(b + " ", a + " ", 1)
    if rng.random() < 0.15:
        text = text.replace("'", "")
    return text


def augment(segs, rng, bag, values=None, p_drop=0.08, p_swap=0.02, p_typo=0.02, p_carrier=0.15, p_value=0.4, plain=0.15):
    """One random variant of a request; segs as above, values: slot -> list of other values."""
    segs = [list(s) for s in segs]
    if values:
        for s in segs:
            if s[1] and rng.random() < p_value and s[1] in values:
                if rng.random() < 0.75:
                    s[0] = rng.choice(values[s[1]])
                else:                                     # any words, some invented: values must be copied, not recalled
                    s[0] = " ".join(rng.choice(bag) if rng.random() < 0.6 else _invented(rng) for _ in range(rng.randint(1, 4)))
    if rng.random() > plain:
        n = sum(len(s[0].split()) for s in segs if not s[1])
        for s in segs:
            if not s[1]:
                s[0] = _contract(s[0], rng)
                if n > 2:
                    s[0] = _words(s[0], rng, p_drop, p_swap, p_typo, bag)
        if rng.random() < p_carrier:
            segs.insert(0, [rng.choice(LEAD) + (", " if rng.random() < 0.3 else " "), None])
        if rng.random() < p_carrier * 0.6:
            _strip_end(segs)
            segs.append([(", " if rng.random() < 0.3 else " ") + rng.choice(TAIL), None])
    _surface(segs, rng)
    segs = [s for s in segs if s[0]]
    while segs and not segs[0][1] and not segs[0][0].strip():
        segs.pop(0)
    if segs and not segs[0][1]:
        segs[0][0] = segs[0][0].lstrip()
    if segs and not segs[-1][1]:
        segs[-1][0] = segs[-1][0].rstrip()
    return [s for s in segs if s[0]]


def _strip_end(segs):
    if segs and not segs[-1][1]:
        segs[-1][0] = segs[-1][0].rstrip(" .?!")
    return segs


def _surface(segs, rng):
    """Letter case and closing punctuation, as people write, dictate and type."""
    r = rng.random()
    if r < 0.42:                                          # as dictated: lower case, mostly no punctuation
        for s in segs:
            s[0] = s[0].lower()
        if rng.random() < 0.75:
            _strip_end(segs)
    elif r < 0.46:
        for s in segs:
            s[0] = s[0].upper() if rng.random() < 0.5 else s[0].title().replace("'S", "'s").replace("'T", "'t")
    elif r < 0.80 and segs:                               # as typed: a capital, I, a full stop or question mark
        for s in segs:
            if not s[1]:
                s[0] = (" " + s[0] + " ").replace(" i ", " I ").replace(" i'", " I'")[1:-1]
        first = segs[0][0].strip().split(" ")[0].lower()
        segs[0][0] = segs[0][0][:1].upper() + segs[0][0][1:]
        if rng.random() < 0.7:
            _strip_end(segs)
            segs.append(["?" if first in QUESTION else "." if rng.random() < 0.85 else "!", None])
    elif r < 0.86:
        for s in segs:
            if rng.random() < 0.5:
                s[0] = s[0].lower()
            elif s[1]:
                s[0] = s[0].title()
