#!/bin/sh
# exports.sh - print the public functions that the headers declare, one a line, sorted
#
#   cmake/exports.sh sdk/include/sluice/*.h > cmake/exports.txt
#
# SPDX-License-Identifier: Apache-2.0
set -eu

awk '
/^[ \t]*#/ { next }
{ text = text " " $0 }
END {
    gsub(/\/\*([^*]|\*+[^*\/])*\*+\//, " ", text)
    while (match(text, /SLUICE_API[^;{]*[;{]/)) {
        declaration = substr(text, RSTART + 10, RLENGTH - 10)
        text = substr(text, RSTART + RLENGTH)
        sub(/[ \t]*\(.*/, "", declaration)      # the name is the last word before its parameters
        sub(/.*[^A-Za-z0-9_]/, "", declaration)
        print declaration
    }
}' "$@" | LC_ALL=C sort -u
