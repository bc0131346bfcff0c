#!/bin/sh
# capture.sh - everything that the demo puts on the wire, recorded by a sniffer, and searched for words
#
# The same search runs over a plaintext exchange recorded in the same capture, where it must find its canary: a search that
# cannot fail proves nothing.  Needs root and tshark or tcpdump.
#
# SPDX-License-Identifier: Apache-2.0
. "$(dirname "$0")/lib.sh"

[ "$(id -u)" = 0 ] || skip "only root may capture packets"
have python3 || skip "no python3 for the plaintext exchange"
# A namespace of its own has a loopback where nobody else's packets are.
if [ "${SLUICE_CAPTURE_ALONE:-}" != 1 ] && have unshare && have ip && unshare -n true 2>/dev/null; then
    SLUICE_CAPTURE_ALONE=1 SLUICE_MODEL=$model
    export SLUICE_CAPTURE_ALONE SLUICE_MODEL
    unshare -n sh -c 'ip link set lo up && exec sh "$0"' "$0"
    exit
fi

pcap=$work/pcap
home=$work/home
mkdir "$pcap"
if have tshark; then
    sniff() { exec tshark -q -i lo -f tcp -w "$pcap/all" 2>"$work/sniffer"; }
    only() { timeout 60 tshark -r "$pcap/all" -Y "tcp.port == $1" -w "$2" >/dev/null 2>&1; }
elif have tcpdump; then
    sniff() { exec tcpdump -U -s 0 -i lo -w "$pcap/all" tcp 2>"$work/sniffer"; }
    only() { timeout 60 tcpdump -r "$pcap/all" -w "$2" tcp port "$1" >/dev/null 2>&1; }
else
    skip "neither tshark nor tcpdump"
fi

canary="the walrus and the carpenter were walking close at hand"
port_of_control=$work/control.port

# One plain HTTP exchange on loopback; its port goes to a file.
plain_exchange() {
    timeout 30 python3 - "$canary" "$port_of_control" <<'PYTHON'
import http.client, http.server, sys, threading

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass

server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
c = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
c.request("POST", "/", sys.argv[1].encode())
c.getresponse().read()
open(sys.argv[2], "w").write(str(server.server_port))
PYTHON
}

sniff &
sniffer=$!
pids="$pids $sniffer"
waited=0
until [ -s "$pcap/all" ]; do
    kill -0 "$sniffer" 2>/dev/null || skip "capturing is not allowed here: $(tail -n 1 "$work/sniffer")"
    [ "$waited" -lt 100 ] || skip "the sniffer does not start"
    sleep 0.1
    waited=$((waited + 1))
done
sleep 0.5

say "the demo while a sniffer listens"
run 120 env SLUICE_HOME="$home" "$sluice" demo --yes --json
check "exit code 0" is 0
plain_exchange || die "the plaintext exchange did not work"
sleep 1
end "$sniffer" INT

port=$(sed -n 's/.*https:[^:]*:\([0-9]*\).*/\1/p' "$home/demo/endpoint.json" | head -n 1)
only "$port" "$pcap/demo" || die "the capture cannot be read"
only "$(cat "$port_of_control")" "$pcap/control" || die "the capture cannot be read"

# Every 12 bytes in a row of every prompt and of every answer, one to a line.
tr '\n' ' ' <"$work/out" | sed 's/ {"prompt": /\n&/g' >"$work/requests"
{
    sed -n 's/^ *{"prompt": "\(.*\)", "without_consent".*/\1/p' "$work/requests"
    grep -o '{"text": "\([^"\\]\|\\.\)*"' "$work/requests" | sed 's/^{"text": "//; s/"$//; s/\\"/"/g'
} | sort -u >"$work/texts"
windows() { awk '{ for (i = 1; i + 11 <= length($0); i++) print substr($0, i, 12) }' | sort -u; }
windows <"$work/texts" >"$work/fragments"
printf '%s\n' "$canary" | windows >"$work/canary"
found() { LC_ALL=C grep -acFf "$1" "$2"; } # found <fragments> <file>

check "there are prompts and answers to search for ($(wc -l <"$work/texts"))" [ "$(wc -l <"$work/texts")" -ge 15 ]
check "answers of the cloud among them" grep -q '"route": "cloud"' "$work/requests"
check "the capture holds the demo's connections: a TLS greeting names the host" [ "$(found /dev/stdin "$pcap/demo" <<END
localhost
END
)" -ge 1 ]
sealed=$(grep -o '"sealed_bytes_[a-z]*": [0-9]*' "$work/requests" | awk '{ n += $2 } END { print n + 0 }')
check "and at least the $sealed sealed bytes that the receipts speak of" [ "$(bytes "$pcap/demo")" -ge "$sealed" ]
check "no 12 bytes of any prompt or answer are in it" [ "$(found "$work/fragments" "$pcap/demo")" = 0 ]
check "nor anywhere else on loopback meanwhile" [ "${SLUICE_CAPTURE_ALONE:-}" != 1 -o "$(found "$work/fragments" "$pcap/all")" = 0 ]
check "the same search finds the canary of a plaintext exchange" [ "$(found "$work/canary" "$pcap/control")" -ge 1 ]
check "and does not find it in the demo's packets" [ "$(found "$work/canary" "$pcap/demo")" = 0 ]
finish
