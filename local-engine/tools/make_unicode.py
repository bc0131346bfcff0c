#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write unicode_table.c: where the class of a code point changes, from Python's own copy of the Unicode character database.

    tools/make_unicode.py > unicode_table.c

Classes: 0 other, 1 letter (L*), 2 number (N*), 3 punctuation (P*), 4 white space (White_Space).
"""
import unicodedata

SPACES = {*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}


def char_class(c):
    if c in SPACES:
        return 4
    return {"L": 1, "N": 2, "P": 3}.get(unicodedata.category(chr(c))[0], 0)


def main():
    starts, last = [], None
    for c in range(0x110000):
        k = char_class(c)
        if k != last:
            starts.append(c << 3 | k)
            last = k
    print("/* unicode_table.c - where the class of a code point changes (Unicode %s).  Written by tools/make_unicode.py."
          % unicodedata.unidata_version)
    print(" *")
    print(" * SPDX-License-Identifier: Apache-2.0")
    print(" */")
    print('#include "local-engine/unicode.h"')
    print()
    print("const uint32_t sluice_unicode_class_starts[] = { /* code point << 3 | class, ascending */")
    for i in range(0, len(starts), 12):
        print("    " + " ".join("0x%x," % s for s in starts[i:i + 12]))
    print("};")
    print("const size_t sluice_unicode_n_class_starts = sizeof sluice_unicode_class_starts / sizeof sluice_unicode_class_starts[0];")


if __name__ == "__main__":
    main()
