#!/bin/sh
# packages.sh - install the Debian packages that a build or the tests need
#
#   cmake/packages.sh build|tests [<log file>]
#
# Does nothing where all of it is there.  Where something is missing and it cannot be installed (not
# root, no apt-get) it says what, and leaves the rest to the build, which may well get along without.
#
# SPDX-License-Identifier: Apache-2.0
set -eu

what=${1:-build}
log=${2:-/dev/null}

# a command or a file that shows the package is there, and the package
needs='
cmake                                       cmake
ninja                                       ninja-build
gcc                                         gcc
/usr/include/stdio.h                        libc6-dev
make                                        make
pkg-config                                  pkg-config
/etc/ssl/certs/ca-certificates.crt          ca-certificates
/usr/include/microhttpd.h                   libmicrohttpd-dev
'
if [ "$what" = tests ]; then
    needs=$needs'
g++                                         g++
autoreconf                                  autoconf
automake                                    automake
libtoolize                                  libtool
aarch64-linux-gnu-gcc                       gcc-aarch64-linux-gnu
/usr/aarch64-linux-gnu/include/stdio.h      libc6-dev-arm64-cross
arm-linux-gnueabihf-gcc                     gcc-arm-linux-gnueabihf
/usr/arm-linux-gnueabihf/include/stdio.h    libc6-dev-armhf-cross
qemu-aarch64-static                         qemu-user-static
python3                                     python3
ip                                          iproute2
tcpdump                                     tcpdump
'
fi

missing=$(echo "$needs" | while read -r shown_by package; do
    case $shown_by in
    '') ;;
    /*) [ -e "$shown_by" ] || echo "$package" ;;
    *) command -v "$shown_by" >/dev/null 2>&1 || echo "$package" ;;
    esac
done | sort -u | tr '\n' ' ')

[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1 || [ "$(id -u)" -ne 0 ]; then
    echo "packages: not installed, and not mine to install: $missing"
    exit 0
fi
echo "packages: installing $missing"
DEBIAN_FRONTEND=noninteractive
export DEBIAN_FRONTEND
# shellcheck disable=SC2086 # one word per package
if ! { apt-get -q update && apt-get -q install -y --no-install-recommends $missing; } >>"$log" 2>&1 </dev/null; then
    echo "packages: apt-get failed, see $log"
    exit 1
fi
