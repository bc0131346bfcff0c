# SPDX-License-Identifier: Apache-2.0
"""Byte-level BPE: training, encoding and decoding of the model's vocabulary.

The alphabet and the word pattern are those that GGUF runtimes call "gpt2"/"gpt-2". Two own rules: no merge holds a
space (a word has the same tokens at the start of a slot value as in mid-sentence), and none holds `"`, `\\`, `{` or
`}` (request text can never become one of the JSON answer tokens, which no merge produces at all).
"""
import collections
import heapq
import json
import re
import unicodedata

CONTROL = ["<|bos|>", "<|eos|>", "<|action|>"]
BOS, EOS, ACTION = 0, 1, 2
_NEVER_MERGED = set(' "\\{}\n\r\t')


def byte_alphabet():
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, extra = {}, 0
    for b in range(256):
        if b in keep:
            table[b] = chr(b)
        else:
            table[b] = chr(256 + extra)
            extra += 1
    return table


BYTE_TO_CHAR = byte_alphabet()
CHAR_TO_BYTE = {c: b for b, c in BYTE_TO_CHAR.items()}
_SPACE = BYTE_TO_CHAR[32]

_CONTRACTION = re.compile(r"'(?:s|t|re|ve|m|ll|d)")


def _char_class(c):
    if c == " ":
        return "_"
    if c.isspace():
        return "s"
    cat = unicodedata.category(c)[0]
    return "l" if cat == "L" else "n" if cat == "N" else "o"


def split_words(text):
    """The gpt-2 pattern: 's|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"""
    classes = "".join(_char_class(c) for c in text)
    out, i, n = [], 0, len(text)
    while i < n:
        m = _CONTRACTION.match(text, i)
        if m:
            j = m.end()
        else:
            k = i + 1 if classes[i] == "_" and i + 1 < n and classes[i + 1] in "lno" else i
            if classes[k] in "lno":
                j = k + 1
                while j < n and classes[j] == classes[k]:
                    j += 1
            else:
                j = i + 1
                while j < n and classes[j] in "s_":
                    j += 1
                if j < n and j - i > 1:
                    j -= 1
        out.append(text[i:j])
        i = j
    return out


def to_alphabet(s):
    return "".join(BYTE_TO_CHAR[b] for b in s.encode("utf-8"))


def learn_merges(counts, n_merges):
    """counts: word -> number (words without spaces). Returns the list of merges, best first; ties by text."""
    words = [[list(to_alphabet(w)), c] for w, c in sorted(counts.items())]
    never = set(to_alphabet("".join(_NEVER_MERGED)))
    pairs, where = collections.Counter(), collections.defaultdict(set)
    for i, (sym, c) in enumerate(words):
        for p in zip(sym, sym[1:]):
            if p[0] not in never and p[1] not in never:
                pairs[p] += c
                where[p].add(i)
    heap = [(-c, p) for p, c in pairs.items()]
    heapq.heapify(heap)
    merges, made = [], set()
    while heap and len(merges) < n_merges:
        c, p = heapq.heappop(heap)
        if pairs.get(p, 0) != -c:
            continue
        if c > -2:
            break
        merges.append(p)
        made.add(p[0] + p[1])
        touched = set()
        for i in sorted(where.pop(p)):
            sym, cnt = words[i]
            for q in zip(sym, sym[1:]):
                if q[0] not in never and q[1] not in never:
                    pairs[q] -= cnt
                    touched.add(q)
            new, k = [], 0
            while k < len(sym):
                if k + 1 < len(sym) and sym[k] == p[0] and sym[k + 1] == p[1]:
                    new.append(p[0] + p[1])
                    k += 2
                else:
                    new.append(sym[k])
                    k += 1
            words[i][0] = new
            for q in zip(new, new[1:]):
                if q[0] not in never and q[1] not in never:
                    pairs[q] += cnt
                    where[q].add(i)
                    touched.add(q)
        for q in touched:
            if q != p and pairs[q] > 0:
                heapq.heappush(heap, (-pairs[q], q))
        pairs.pop(p, None)
    return merges


class Tokenizer:
    """Token ids: the control tokens, 256 bytes, one per merge, then the JSON answer pieces."""

    def __init__(self, merges, pieces):
        self.merges = [tuple(m) for m in merges]
        self.pieces = list(pieces)
        self.tokens = CONTROL + [BYTE_TO_CHAR[b] for b in range(256)]
        seen = set(self.tokens)
        for a, b in self.merges:
            if a + b not in seen:
                seen.add(a + b)
                self.tokens.append(a + b)
        self.n_text = len(self.tokens)
        self.tokens += [to_alphabet(p) for p in self.pieces]
        assert len(set(self.tokens)) == len(self.tokens), "an answer piece is already a token"
        while len(self.tokens) % 32:
            self.tokens.append("<|unused%d|>" % (len(self.tokens) % 32))
        self.text_ids = {t: i for i, t in enumerate(self.tokens[: self.n_text])}
        self.piece_ids = {p: self.n_text + i for i, p in enumerate(self.pieces)}
        self.rank = {m: i for i, m in enumerate(self.merges)}
        self.cache = {}

    def is_control(self, i):
        return i < len(CONTROL) or self.tokens[i].startswith("<|unused")

    def _bpe(self, word):
        ids = self.cache.get(word)
        if ids is None:
            sym = list(to_alphabet(word))
            while len(sym) > 1:
                best = min(zip(sym, sym[1:]), key=lambda p: self.rank.get(p, 1 << 30))
                if best not in self.rank:
                    break
                new, k = [], 0
                while k < len(sym):
                    if k + 1 < len(sym) and (sym[k], sym[k + 1]) == best:
                        new.append(sym[k] + sym[k + 1])
                        k += 2
                    else:
                        new.append(sym[k])
                        k += 1
                sym = new
            ids = self.cache[word] = [self.text_ids[s] for s in sym]
            if len(self.cache) > 400000:
                self.cache.clear()
        return ids

    def encode(self, text):
        out = []
        for w in split_words(text):
            out += self._bpe(w)
        return out

    def prompt(self, text):
        return [BOS] + self.encode(text) + [ACTION]

    def decode(self, ids):
        data = b"".join(bytes(CHAR_TO_BYTE[c] for c in self.tokens[i]) for i in ids if not self.is_control(i))
        return data.decode("utf-8", "replace")

    def save(self, path):
        with open(path, "w", encoding="utf-8") as f:
            json.dump({"merges": [list(m) for m in self.merges], "pieces": self.pieces}, f, ensure_ascii=False)

    @classmethod
    def load(cls, path):
        with open(path, encoding="utf-8") as f:
            d = json.load(f)
        return cls(d["merges"], d["pieces"])
