#!/usr/bin/env bash
# with-servers.sh COMMAND...: runs COMMAND beside a private PostgreSQL and Kafka. They end when this script ends, also
# by kill -9. COMMAND finds them in DATABASE_URL and KAFKA_BROKERS, and the Pythons of the cron oracle and of clients that
# are not ours in ORACLE_PYTHON and CLIENTS_PYTHON.
# BELFRY_POSTGRES=durable keeps fsync on.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.sh"
find "${TMPDIR:-/tmp}" -maxdepth 1 -name 'belfry-servers.*' -mmin +180 -exec rm -rf {} + 2> /dev/null || true
"$servers/kafka.sh" fetch
ORACLE_PYTHON=$("$servers/python.sh" oracle "$servers/../../scheduler/tests/oracle/requirements.txt")
CLIENTS_PYTHON=$("$servers/python.sh" clients "$servers/../clients/requirements.txt")
export ORACLE_PYTHON CLIENTS_PYTHON
dir=$(mktemp -d "${TMPDIR:-/tmp}/belfry-servers.XXXXXX")
chmod 711 "$dir"
read -r postgres kafka controller <<< "$(free_ports 3)"
"$servers/postgres.sh" "$dir/postgres" "$postgres" "${BELFRY_POSTGRES:-fast}" & postgres_pid=$!
"$servers/kafka.sh" run "$dir/kafka" "$kafka" "$controller" & kafka_pid=$!
command= life=
finish() {
    local code=$?
    trap - EXIT INT TERM HUP
    set +e
    if [ -n "$command" ]; then
        kill -TERM -- "-$command" 2> /dev/null
        wait "$command" 2> /dev/null
    fi
    [ -z "$life" ] || exec {life}>&- # its reader is waited for below
    kill -INT "$postgres_pid" 2> /dev/null
    kill -KILL "$kafka_pid" 2> /dev/null
    wait 2> /dev/null
    rm -rf "$dir"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
mkdir -p "$dir/postgres" "$dir/kafka"
touch "$dir/postgres/log" "$dir/kafka/log"
until_answers "$postgres" "$postgres_pid" "$dir/postgres/log" "$dir"/postgres/initdb.log
until_answers "$kafka" "$kafka_pid" "$dir/kafka/log"
export DATABASE_URL="postgres://postgres@127.0.0.1:$postgres/postgres" KAFKA_BROKERS="127.0.0.1:$kafka"
export BELFRY_SERVERS="$dir" BELFRY_POSTGRES_PID="$postgres_pid" BELFRY_KAFKA_PID="$kafka_pid"
# In the background, so that a signal is handled at once; in a session of its own, so that all it started can be ended.
setsid "$@" & command=$!
# Also when this script is killed: the pipe closes, and whoever reads it ends what is left.
exec {life}> >(exec setsid bash -c 'cat > /dev/null; kill -KILL -- "-$0" 2> /dev/null' "$command")
code=0
wait "$command" || code=$?
command=
exit "$code"
