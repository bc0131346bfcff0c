#!/bin/sh
# run.sh - run interop.mjs where Node 20 and the packages are there, else skip
#
#   run.sh DRIVER WORK     the packages are looked for in WORK/node_modules
#
# SPDX-License-Identifier: Apache-2.0
set -eu

driver=$1
work=$2
here=$(cd "$(dirname "$0")" && pwd)

if ! command -v node >/dev/null || [ "$(node -p 'process.versions.node.split(".")[0]')" -lt 20 ]; then
    echo "skipped: Node 20 or newer is needed"
    exit 77
fi
if [ ! -d "$work/node_modules/hpke" ]; then
    echo "skipped: no packages; see $here/README.md"
    exit 77
fi
cp "$here/interop.mjs" "$here/ohttp.mjs" "$work/" # modules are resolved from where the importing file lies
exec node "$work/interop.mjs" "$driver"
