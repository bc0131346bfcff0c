#!/bin/sh
# make_certs.sh - certificates for the transport's tests, good and bad, with the openssl command
#
#   make_certs.sh DIR
#
#   ca.pem other_ca.pem          two private CAs
#   good expired future          signed by ca for localhost and 127.0.0.1; one per validity
#   wronghost                    signed by ca for example.test
#   unknown                      signed by other_ca for localhost
#   server.key                   the key of all of them; pin.txt its pin, other_pin.txt the pin of another key
#
# SPDX-License-Identifier: Apache-2.0
set -eu

dir=$1
mkdir -p "$dir"
cd "$dir"
[ -f done ] && exit 0

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1" 2>/dev/null; }
pin() { openssl pkey -in "$1" -pubout -outform DER 2>/dev/null | openssl dgst -sha256 -binary | openssl base64 -A; }

for name in ca other_ca server other; do key "$name.key"; done
for name in ca other_ca; do
    openssl req -x509 -new -key "$name.key" -sha256 -days 30 -subj "/CN=test $name" -out "$name.pem" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
done
pin server.key >pin.txt
pin other.key >other_pin.txt

# `openssl ca` takes dates, past and future, in every version
cat >ca.cnf <<CNF
[ca]
default_ca = d
[d]
database = index.txt
new_certs_dir = .
default_md = sha256
policy = p
rand_serial = yes
unique_subject = no
[p]
commonName = supplied
CNF
: >index.txt

leaf() { # leaf <name> <ca> <subject alternative names> <from> <to>
    openssl req -new -key server.key -subj "/CN=test $1" -out "$1.csr" 2>/dev/null
    printf 'subjectAltName=%s\nbasicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\n' "$3" >"$1.ext"
    openssl ca -batch -notext -config ca.cnf -cert "$2.pem" -keyfile "$2.key" -in "$1.csr" -out "$1.pem" \
        -extfile "$1.ext" -startdate "$4" -enddate "$5" 2>/dev/null
}
local=DNS:localhost,IP:127.0.0.1
leaf good ca "$local" 20200101000000Z 20491231000000Z
leaf expired ca "$local" 20200101000000Z 20210101000000Z
leaf future ca "$local" 20480101000000Z 20491231000000Z
leaf wronghost ca DNS:example.test 20200101000000Z 20491231000000Z
leaf unknown other_ca "$local" 20200101000000Z 20491231000000Z
: >done
