#!/usr/bin/env bash
# build.sh: makes each peer ready under .cache/peers/NAME, with a script `run`; says which ones lack a toolchain.
set -euo pipefail
peers=$(dirname "$(readlink -f "$0")")
. "$peers/../servers/common.sh"

# ready NAME TOOL: whether the peer can be made; its files are then in the cache and the folder is entered.
ready() {
    if ! command -v "$2" > /dev/null; then
        echo "$1 is left out: $2 is not installed" >&2
        rm -rf "$cache/peers/$1"
        return 1
    fi
    mkdir -p "$cache/peers/$1"
    cp -r "$peers/$1/." "$cache/peers/$1/"
    cd "$cache/peers/$1"
}

# runs NAME COMMAND...: how the peer is started.
runs() {
    local name=$1
    shift
    printf '#!/bin/sh\nexec %s "$@"\n' "$*" > "$cache/peers/$name/run"
    chmod +x "$cache/peers/$name/run"
}

if ready graphile-worker npm; then
    npm ci --silent --no-audit --no-fund
    runs graphile-worker node "$PWD/main.mjs"
fi
if ready river go; then
    go build -o peer .
    runs river "$PWD/peer"
fi
