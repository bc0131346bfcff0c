#!/bin/sh
# faults.sh - what goes wrong outside: gateways, certificates, keys, files, disks, other processes
#
# Each fault gives one clear error with the documented exit code, or an answer of the device; never a hang, a crash or a lost
# record.  "cloud_only" shows the error of the cloud, "prefer_cloud" the answer that the device gives instead.
#
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

home=$work/home
state=$home/state
question="what is the capital of the country where the river Volta ends"

ask() { # ask <policy> [options]
    use=$1
    shift
    run 30 "$sluice" --json --home "$home" --policy "$work/$use" "$@" "$question"
}
grant() { # grant <policy>
    run 20 "$sluice" --home "$home" --policy "$work/$1" consent grant --endpoint gateway --classes prompt,email --until 1d
    is 0 || die "no consent: $(cat "$work/err")"
}
verify() { run 20 "$sluice" --home "$home" --policy "$work/must" ledger verify; }
entries() { timeout 20 "$sluice" --home "$home" --policy "$work/must" ledger list | wc -l; }
one_error() { [ "$(grep -c '^sluice: ' "$work/err")" = 1 ]; }      # of a verb, for people
failed_with() { out_has "\"outcome\": \"failed\"" && out_has "\"status\": \"SLUICE_ERR_$1\""; }
answered_locally() { is 0 8 && out_has '"route": "local"'; }
policies() { # for the running gateway: "must" has only the cloud, "may" prefers it
    policy "$work/must" "$work/$gateway_name.ready" cloud_only
    policy "$work/may" "$work/$gateway_name.ready" prefer_cloud
}
by_cloud() { is 0 && out_has '"route": "cloud"' && [ "$(number attempts)" = 1 ]; }

# ---- the way that works: everything after it is a fault of what the fault names --------------------------

say "no fault"
start_gateway gw
policies
grant must
ask must
check "the cloud answers" by_cloud

say "the gateway is gone"
stop_gateway KILL
ask must
check "exit code 5" is 5
check "it says that nobody listens" out_has "no connection"
check "and what to do" out_has "is the gateway running"
check "soon" [ "$took_ms" -lt "$(span 3000)" ]
ask may
check "the device answers where it may" answered_locally
check "and the reasons say that the cloud failed" out_has '"cloud_failed"'

say "the gateway dies in the middle of a request"
for use in must may; do
    start_gateway gw --once-fail stall
    policies
    dying=$gateway_pid
    (
        waited=0
        until [ -s "$work/gw.tap" ] || [ "$waited" -gt 100 ]; do sleep 0.1; waited=$((waited + 1)); done
        kill -9 "$dying"
    ) 2>/dev/null &
    killer=$!
    pids="$pids $killer"
    ask "$use"
    wait "$killer"
    stop_gateway KILL
    check "$use: before the deadline" [ "$took_ms" -lt "$(span 9000)" ]
    if [ "$use" = must ]; then
        check "must: exit code 5, and the connection broke off" is 5
        check "must: with one attempt: what may have arrived is never sent again" [ "$(number attempts)" = 1 ]
    else
        check "may: the device answers" answered_locally
    fi
done

say "a gateway that stalls"
start_gateway gw --once-fail stall
policies
ask must --deadline 1500
check "exit code 5" is 5
check "it was the time" failed_with TIMEOUT
total_ms=$(($(number total_us) / 1000))
check "within the deadline and half a second ($total_ms ms; $took_ms with starting and ending)" [ "$total_ms" -le "$(span 2000)" -a "$took_ms" -le "$(span 4000)" ]
ask must
check "the next request is answered" by_cloud
stop_gateway

say "a gateway that answers 503"
start_gateway gw --once-fail status
policies
ask must
check "exit code 5" is 5
check "the message has the number" out_has "503"
ask must
check "the next request is answered" by_cloud
stop_gateway
start_gateway gw --once-fail status
policies
ask may
check "the device answers where it may" answered_locally
stop_gateway

say "a gateway whose model fails, under the seal"
start_gateway gw --once-fail inner
policies
ask must
check "exit code 5" is 5
check "the message has the number" out_has "500"
stop_gateway

say "an answer that breaks off"
start_gateway gw --once-fail cut
policies
ask must
check "exit code 5" is 5
check "it is not passed off as a whole answer" not out_has '"outcome": "answered"'
stop_gateway

# ---- who is at the other end ------------------------------------------------------------------------------

start_gateway gw
policies
if have openssl; then
    say "an expired certificate"
    stop_gateway
    cp "$work/gw/server.pem" "$work/good.pem"
    (
        cd "$work/gw" || exit 1
        printf '[ca]\ndefault_ca=d\n[d]\ndatabase=%s\nnew_certs_dir=%s\ndefault_md=sha256\npolicy=p\nrand_serial=yes\nunique_subject=no\n[p]\ncommonName=supplied\n' \
            "$work/index" "$work" >"$work/ca.cnf"
        : >"$work/index"
        printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n' >"$work/ext"
        openssl req -new -key server.key -subj "/CN=Sluice gateway" -out "$work/csr" 2>/dev/null &&
            openssl ca -batch -notext -config "$work/ca.cnf" -cert ca.pem -keyfile ca.key -in "$work/csr" -out "$work/expired.pem" \
                -extfile "$work/ext" -startdate 20200101000000Z -enddate 20210101000000Z 2>"$work/openssl"
    ) || die "openssl made no certificate: $(cat "$work/openssl")"
    cp "$work/expired.pem" "$work/gw/server.pem"
    start_gateway gw
    policies
    ask must
    check "exit code 5" is 5
    check "it is TLS" failed_with TLS
    check "the message says expired" out_has "has expired"
    check "no byte of a request went out" [ "$(bytes "$work/gw.tap")" = 0 ]
    ask may
    check "the device answers where it may" answered_locally
    stop_gateway
    cp "$work/good.pem" "$work/gw/server.pem"
    start_gateway gw
    policies
else
    say "skipped, no openssl: an expired certificate"
fi
run 30 "$gateway" init "$work/other"
is 0 || die "the other gateway: $(cat "$work/err")"

# swap <field> <new file>: the field's value of another gateway's endpoint, in place of this one's
swap() {
    line=$(grep -F "\"$1\":" "$work/other/endpoint.json") name="\"$1\":" \
        awk 'index($0, ENVIRON["name"]) { print ENVIRON["line"]; next } { print }' "$work/gw.ready" >"$work/swapped"
    grep -vF "\"$1\":" "$work/gw.ready" >"$work/rest_a"
    grep -vF "\"$1\":" "$work/swapped" >"$work/rest_b"
    cmp -s "$work/rest_a" "$work/rest_b" && not cmp -s "$work/gw.ready" "$work/swapped" || die "swap $1"
    policy "$work/$2" "$work/swapped" "$3"
}

say "a wrong pin"
swap spki_pins badpin cloud_only
ask badpin
check "exit code 5" is 5
check "it is the pin" failed_with PIN_MISMATCH
swap spki_pins badpin prefer_cloud
ask badpin
check "the device answers where it may" answered_locally

say "a wrong CA"
swap ca_pem badca cloud_only
ask badca
check "exit code 5" is 5
check "it is TLS" failed_with TLS
check "the message speaks of the CA" out_has "CA"

check "no byte of those requests went out" [ "$(bytes "$work/gw.tap")" = 0 ]

say "a wrong key for oblivious HTTP"
swap key_config badkey cloud_only
ask badkey
check "exit code 5" is 5
check "the far side refused it" failed_with REMOTE
check "the message speaks of the key" out_has "key_config"
sed 's/"key_config":[^,]*,/"key_config": "AAAA",/' "$work/gw.ready" >"$work/broken"
policy "$work/nokey" "$work/broken" cloud_only
ask nokey
check "a key that is none is an error of the policy: exit code 3" is 3

say "something that is no gateway at that port"
if have python3; then
    timeout 60 python3 -c '
import socket, sys
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen(8); s.settimeout(50)
open(sys.argv[1], "w").write(str(s.getsockname()[1]))
while True:
    c, _ = s.accept(); c.settimeout(2)
    try: c.recv(4096); c.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"); c.close()
    except OSError: pass
' "$work/port" 2>/dev/null &
    pids="$pids $!"
    until [ -s "$work/port" ]; do sleep 0.1; done
    sed "s/localhost:[0-9]*/localhost:$(cat "$work/port")/" "$work/gw.ready" >"$work/plain"
    policy "$work/plainhttp" "$work/plain" cloud_only
    ask plainhttp
    check "exit code 5" is 5
    check "one message" failed_with TLS
fi

# ---- files --------------------------------------------------------------------------------------------------

say "model files"
head -c 100000 "$model" >"$work/short.gguf"
head -c 100000 "$model" >"$work/short.bin"
echo "this is no model" >"$work/text.gguf"
: >"$work/empty.gguf"
mkdir "$work/folder.gguf"
for file in short.gguf short.bin text.gguf empty.gguf folder.gguf missing.gguf; do
    run 20 "$sluice" --home "$home" --model "$work/$file" "$question"
    check "$file: exit code 6" is 6
    check "$file: one error that names it" one_error
    check "$file: by name" err_has "$file"
done
# any prefix, and any damage, ends in an error or an answer
size=$(bytes "$model")
for cut in 4 23 1000 78595 "$((size / 2))" "$((size - 1))"; do
    head -c "$cut" "$model" >"$work/short.gguf"
    run 20 "$sluice" --home "$home" model inspect "$work/short.gguf"
    check "a model cut to $cut bytes: exit code 0 or 6" is 0 6
    run 20 "$sluice" --home "$home" --model "$work/short.gguf" "$question"
    check "a model cut to $cut bytes does not answer: exit code 6" is 6
done

say "policy files"
sed 's/"router"/"ruoter"/' "$work/must" >"$work/typo"
where=$(grep -n ruoter "$work/typo" | cut -d: -f1)
run 20 "$sluice" --home "$home" --policy "$work/typo" "$question"
check "a typo: exit code 3" is 3
check "one error" one_error
check "with its line" err_has "typo:$where:"
check "and what was meant" err_has 'did you mean "router"?'
run 20 "$sluice" --home "$home" policy lint "$work/typo"
check "lint finds it too: exit code 3" is 3
run 20 "$sluice" --home "$home" --policy "$work/typo" ledger verify
check "as do the other verbs" is 3
run 20 "$sluice" --home "$home" --policy "$work/none" "$question"
check "no such file: exit code 3" is 3
check "one error that names it" one_error
head -c 300 "$work/must" >"$work/cut"
run 20 "$sluice" --home "$home" --policy "$work/cut" "$question"
check "half a file: exit code 3" is 3
run 20 "$sluice" --home "$home" --policy "$work" "$question"
check "a folder: exit code 3" is 3

# ---- the state folder -----------------------------------------------------------------------------------------

# Nothing can be recorded, so nothing leaves; the device goes on answering.
closed() { # closed <what> <home>
    : >"$work/gw.tap"
    run 30 "$sluice" --json --home "$2" --policy "$work/may" "$question"
    check "$1: the device answers" answered_locally
    check "$1: nothing left" nothing_left
    check "$1: the reasons say why" out_has '"ledger_unavailable"'
    run 30 "$sluice" --json --home "$2" --policy "$work/must" "$question"
    check "$1: where only the cloud may answer, nobody does: exit code 3" is 3
    check "$1: the gateway saw nothing" [ "$(bytes "$work/gw.tap")" = 0 ]
    run 20 "$sluice" --home "$2" --policy "$work/must" consent grant --endpoint gateway
    check "$1: no consent can be given" not is 0
    check "$1: and the error is one" one_error
}

say "a state folder that cannot be written"
closed "below /proc" /proc/sluice-e2e
echo >"$work/file"
closed "a file in its place" "$work/file"
if [ "$(id -u)" = 0 ] && mkdir "$work/readonly" && mount -t tmpfs -o size=64k none "$work/readonly" 2>/dev/null; then
    mounted=$work/readonly
    mkdir "$mounted/home"
    mount -o remount,ro "$mounted" && closed "read-only" "$mounted/home"
    mount -o remount,rw "$mounted"
    dd if=/dev/zero of="$mounted/ballast" bs=1k 2>/dev/null
    closed "a full disk" "$mounted/home"
    umount "$mounted" && mounted=
else
    say "skipped, no right to mount: a read-only folder, a full disk"
fi

say "two processes, one state folder"
mkfifo "$work/line"
timeout "$(span 60)" "$sluice" --json --home "$home" --policy "$work/must" chat <"$work/line" >"$work/chat" 2>&1 &
chat=$!
pids="$pids $chat"
exec 3>"$work/line"
echo "$question" >&3
waited=0
until grep -q outcome "$work/chat" || [ "$waited" -gt "$(span 150)" ]; do sleep 0.1; waited=$((waited + 1)); done
check "the first is answered by the cloud" grep -q '"route": "cloud"' "$work/chat"
closed "held by another" "$home"
run 20 "$sluice" --home "$home" --policy "$work/must" ledger verify
check "verify says that another holds it: exit code 1" is 1
exec 3>&-
wait "$chat"
check "the first ends well" [ $? -eq 0 ]
verify
check "and the ledger is whole" is 0
ask must
check "now the second may" by_cloud

say "the client dies in the middle of a request"
stop_gateway
start_gateway gw --once-fail stall
policies
before=$(entries)
"$sluice" --json --home "$home" --policy "$work/must" "$question" >/dev/null 2>&1 </dev/null &
client=$!
pids="$pids $client"
waited=0
until [ -s "$work/gw.tap" ] || [ "$waited" -gt "$(span 100)" ]; do sleep 0.1; waited=$((waited + 1)); done
check "what it sent is with the gateway" [ -s "$work/gw.tap" ]
end "$client" KILL 2>/dev/null
verify
check "the ledger is whole" is 0
timeout 20 "$sluice" --home "$home" --policy "$work/must" ledger list | tail -n "+$((before + 1))" >"$work/new"
check "the record of what left is there" grep -q '"type":"egress","verdict":"granted"' "$work/new"

say "damage to the ledger"
cp -R "$state" "$work/sound"
restore() { rm -rf "$state" && cp -R "$work/sound" "$state"; }
n=$(entries)

middle=$(($(bytes "$state/ledger") / 2))
old=$(dd if="$state/ledger" bs=1 skip="$middle" count=1 2>/dev/null)
new=x
[ "$old" = x ] && new=y
printf %s "$new" | dd of="$state/ledger" bs=1 seek="$middle" conv=notrunc 2>/dev/null
verify
check "a byte changed: verify exits 7" is 7
check "one error" one_error
check "that names the entry" grep -q 'entry [0-9]' "$work/err"
closed "a byte changed" "$home"
check "and the file is left as it was, for whoever looks into it" [ "$(bytes "$state/ledger")" = "$(bytes "$work/sound/ledger")" ]
restore

sed -i '$d' "$state/ledger"
sed -i '$d' "$state/ledger"
verify
check "the last two entries cut off: verify exits 7" is 7
closed "entries cut off" "$home"
restore

sed -i 2d "$state/ledger"
verify
check "an entry taken out of the middle: verify exits 7" is 7
restore

rm "$state/ledger.head"
verify
check "no head: verify exits 7" is 7
restore

rm "$state/ledger"
verify
check "no ledger beside its head: verify exits 7" is 7
restore

head -c 100 "$work/sound/ledger" >>"$state/ledger"
verify
check "a torn tail: verify exits 0" is 0
timeout 20 "$sluice" --home "$home" --policy "$work/must" ledger list >"$work/list"
check "it was mended, and that is noted" grep -q '"type":"recovered"' "$work/list"
check "no entry was lost" [ "$(wc -l <"$work/list")" -gt "$n" ]
ask must
check "and the consent of before still counts" by_cloud
restore

for key in "$state"/keys/*; do
    printf 'x' | dd of="$key" bs=1 seek=3 conv=notrunc 2>/dev/null
done
verify
check "another key: verify exits 7" is 7
closed "another key" "$home"
restore
for key in "$state"/keys/*; do : >"$key"; done
verify
check "an empty key: an error, not 0" not is 0
closed "an empty key" "$home"
restore
verify
check "and after all that the sound one still verifies" is 0
stop_gateway
finish
