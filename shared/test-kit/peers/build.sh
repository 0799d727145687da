#!/usr/bin/env bash
# build.sh: makes each peer ready under .cache/peers/NAME, with a script `run`; says which ones lack a toolchain.
set -euo pipefail
peers=$(dirname "$(readlink -f "$0")")
. "$peers/../servers/common.sh"

# ready FOLDER TOOL PEER...: whether what is in the folder can be made; its files are then in the cache and it is entered.
ready() {
    local folder=$1 tool=$2
    shift 2
    if ! command -v "$tool" > /dev/null; then
        echo "$* left out: $tool is not installed" >&2
        for peer; do rm -rf "${cache:?}/peers/$peer"; done
        return 1
    fi
    mkdir -p "$cache/peers/of/$folder"
    cp -r "$peers/$folder/." "$cache/peers/of/$folder/"
    cd "$cache/peers/of/$folder"
}

# runs PEER "MODES" COMMAND...: what the peer can be asked, and how it is started.
runs() {
    local folder=$cache/peers/$1 modes=$2
    shift 2
    mkdir -p "$folder"
    echo "$modes" > "$folder/modes"
    printf '#!/bin/sh\nexec %s "$@"\n' "$*" > "$folder/run"
    chmod +x "$folder/run"
}

if ready graphile-worker npm graphile-worker; then
    npm ci --silent --no-audit --no-fund
    runs graphile-worker "burn latency" node "$PWD/main.mjs"
fi
if ready river go river; then
    go build -o peer .
    runs river "burn latency" "$PWD/peer"
fi
if ready rust cargo awa graphile_worker tokio-cron-scheduler; then
    cargo build --quiet --release --locked
    runs awa "burn latency" "$PWD/target/release/awa"
    runs graphile_worker "burn latency" "$PWD/target/release/graphile_worker"
    runs tokio-cron-scheduler fires "$PWD/target/release/tokio_cron_scheduler"
fi
if ready java mvn db-scheduler quartz; then
    mvn --quiet -Dmdep.outputFile=classpath compile dependency:build-classpath
    java="java -cp $PWD/target/classes:$(cat classpath)"
    runs db-scheduler "burn latency" "$java" DbScheduler
    runs quartz fires "$java" Quartz
fi
if ready apscheduler python3 apscheduler; then
    python3 -m venv venv
    venv/bin/pip install --quiet --requirement requirements.txt
    runs apscheduler fires "$PWD/venv/bin/python" "$PWD/main.py"
fi
