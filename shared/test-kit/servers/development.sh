#!/usr/bin/env bash
# development.sh up | down: a private PostgreSQL and Kafka that stay, for development.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.sh"
dir=$cache/development

up() {
    if [ -e "$dir/pids" ] && alive "$(head -1 "$dir/pids")"; then
        cat "$dir/env"
        return
    fi
    "$servers/kafka.sh" fetch
    mkdir -p "$dir/postgres" "$dir/kafka"
    chmod 711 "$dir"
    [ -e "$dir/ports" ] || free_ports 3 > "$dir/ports"
    read -r postgres kafka controller < "$dir/ports"
    # A keeper outlives this script; the servers end with it.
    setsid bash -c '"$0/postgres.sh" "$1/postgres" "$2" durable & "$0/kafka.sh" run "$1/kafka" "$3" "$4" & wait' \
        "$servers" "$dir" "$postgres" "$kafka" "$controller" < /dev/null > "$dir/log" 2>&1 &
    echo $! > "$dir/pids"
    until_answers "$postgres" "$(cat "$dir/pids")" "$dir/log"
    until_answers "$kafka" "$(cat "$dir/pids")" "$dir/log"
    {
        echo "export DATABASE_URL=postgres://postgres@127.0.0.1:$postgres/postgres"
        echo "export KAFKA_BROKERS=127.0.0.1:$kafka"
        echo "export ORACLE_PYTHON=$("$servers/python.sh" oracle "$servers/../../scheduler/tests/oracle/requirements.txt")"
        echo "export CLIENTS_PYTHON=$("$servers/python.sh" clients "$servers/../clients/requirements.txt")"
    } > "$dir/env"
    cat "$dir/env"
}

down() {
    [ -e "$dir/pids" ] || return 0
    local pid
    pid=$(cat "$dir/pids")
    kill -TERM -- "-$pid" 2> /dev/null || true
    while alive "$pid"; do sleep 0.1; done
    rm -f "$dir/pids"
}

case ${1:-} in
    up) up ;;
    down) down ;;
    *) sed -n 2p "$0" >&2; exit 2 ;;
esac
