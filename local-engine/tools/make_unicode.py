#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write unicode_table.c from Python's own copy of the Unicode character database.

    tools/make_unicode.py > unicode_table.c

Two tables: where the kind of a code point changes (kinds as in unicode.h), and what a code point becomes when it is decomposed (NFD), loses
its nonspacing marks and is written in lower case.  Hangul syllables are left out of the second: they decompose by arithmetic.
"""
import unicodedata

SPACES = {*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}
KINDS = {"Lu": 1, "Lt": 1, "Ll": 2, "Lm": 3, "Lo": 3, "Mn": 7, "Mc": 8, "Me": 8, "Cc": 9, "Cf": 9, "Co": 9}
HANGUL = range(0xAC00, 0xD7A4)
RUN_MAX = 1023


def kind(c):
    if c in SPACES:
        return 6
    category = unicodedata.category(chr(c))
    return KINDS.get(category, {"N": 4, "P": 5}.get(category[0], 0))


def fold(c):
    bare = [x for x in unicodedata.normalize("NFD", chr(c)) if unicodedata.category(x) != "Mn"]
    return [ord(x.lower()) if len(x.lower()) == 1 else ord(x) for x in bare]


def runs_of(folds):
    """(first, stride, count, target of the first) of code points at the same distance from what they become."""
    runs, keys, i = [], sorted(folds), 0
    while i < len(keys):
        best = (1, 1)
        for stride in (1, 2):
            n = 1
            while (i + n < len(keys) and n < RUN_MAX and keys[i + n] == keys[i] + n * stride
                   and folds[keys[i + n]] - keys[i + n] == folds[keys[i]] - keys[i]):
                n += 1
            best = max(best, (n, stride))
        runs.append((keys[i], best[1], best[0], folds[keys[i]]))
        i += best[0]
    return runs


def rows(items, per_line):
    for i in range(0, len(items), per_line):
        print("    " + " ".join(items[i:i + per_line]))


def main():
    starts, last, single, several = [], None, {}, []
    for c in range(0x110000):
        k = kind(c)
        if k != last:
            starts.append(c << 4 | k)
            last = k
        if 0xD800 <= c < 0xE000 or c in HANGUL or k == 7:
            continue
        f = fold(c)
        if len(f) > 1:
            several.append([c] + f + [0] * (3 - len(f)))
        elif f != [c]:
            single[c] = f[0]
    print("/* unicode_table.c - kinds and foldings of code points (Unicode %s).  Written by tools/make_unicode.py." % unicodedata.unidata_version)
    print(" *")
    print(" * SPDX-License-Identifier: Apache-2.0")
    print(" */")
    print('#include "local-engine/unicode.h"')
    print()
    print("const uint32_t sluice_unicode_kind_starts[] = { /* code point << 4 | kind, ascending */")
    rows(["0x%x," % s for s in starts], 12)
    print("};")
    print("const size_t sluice_unicode_n_kind_starts = sizeof sluice_unicode_kind_starts / sizeof sluice_unicode_kind_starts[0];")
    print()
    print("const sluice_unicode_fold_run sluice_unicode_fold_runs[] = { /* ascending, see unicode.h */")
    rows(["{ 0x%x, 0x%x }," % (first | (stride - 1) << 21 | n << 22, target) for first, stride, n, target in runs_of(single)], 7)
    print("};")
    print("const size_t sluice_unicode_n_fold_runs = sizeof sluice_unicode_fold_runs / sizeof sluice_unicode_fold_runs[0];")
    print()
    print("const uint32_t sluice_unicode_fold_several[][4] = { /* code point, then what it becomes; 0: no more */")
    rows(["{ %s }," % ", ".join("0x%x" % x for x in row) for row in several], 4)
    print("};")
    print("const size_t sluice_unicode_n_fold_several = sizeof sluice_unicode_fold_several / sizeof sluice_unicode_fold_several[0];")


if __name__ == "__main__":
    main()
