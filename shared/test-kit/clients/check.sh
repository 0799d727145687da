#!/usr/bin/env bash
# check.sh BELFRY: starts the platform on the servers of with-servers.sh and lets clients that are not ours read it.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/../servers/common.sh"
clients=$(dirname "$(readlink -f "$0")")
belfry=$1
command -v kcat > /dev/null || { echo "missing: kcat; run: apt-get install kcat" >&2; exit 1; }
read -r http admin <<< "$(free_ports 2)"
data=$(mktemp -d)
export HTTP_ADDR=127.0.0.1:$http ADMIN_ADDR=127.0.0.1:$admin RUST_LOG=warn
setpriv --pdeathsig TERM "$belfry" up --data-dir "$data" > "$data/log" & platform=$!
finish() {
    local code=$?
    trap - EXIT
    kill -TERM "$platform" 2> /dev/null || true
    wait "$platform" 2> /dev/null || true
    rm -rf "$data"
    exit "$code"
}
trap finish EXIT
trap 'exit 143' INT TERM HUP
until curl -fso /dev/null "http://127.0.0.1:$admin/readyz"; do
    alive "$platform" || { cat "$data/log" >&2; exit 1; }
    sleep 0.1
done
"$CLIENTS_PYTHON" "$clients/check.py" "http://127.0.0.1:$http" "http://127.0.0.1:$admin" "$KAFKA_BROKERS"
