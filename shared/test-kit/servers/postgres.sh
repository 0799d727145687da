#!/usr/bin/env bash
# postgres.sh DIR PORT [durable]: a private PostgreSQL in the foreground, which ends with its parent.
# Never the system's own cluster: its data lives in DIR. `durable` keeps fsync on, for measuring.
set -euo pipefail
dir=$(readlink -m "$1") port=$2 mode=${3:-fast}
bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
as=()
[ "$(id -u)" != 0 ] || as=(--reuid=postgres --regid=postgres --init-groups)
export LC_ALL=C.UTF-8

if [ ! -e "$dir/data/PG_VERSION" ]; then
    mkdir -p "$dir/data"
    chmod 711 "$dir"
    chmod 700 "$dir/data"
    [ "$(id -u)" != 0 ] || chown postgres:postgres "$dir" "$dir/data"
    (cd / && setpriv "${as[@]}" "$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync) \
        > "$dir/initdb.log" 2>&1
fi
options=(-c listen_addresses=127.0.0.1 -c port="$port" -c unix_socket_directories="$dir" -c max_connections=300
    -c dynamic_shared_memory_type=mmap)
if [ "$mode" = durable ]; then
    options+=(-c shared_buffers=512MB -c shared_preload_libraries=pg_stat_statements)
else
    options+=(-c shared_buffers=128MB -c fsync=off -c synchronous_commit=off -c full_page_writes=off)
fi
cd /
# The change of user and the signal of the parent's death belong into one call: a later change of user clears it.
exec setpriv "${as[@]}" --pdeathsig INT "$bin/postgres" -D "$dir/data" "${options[@]}" > "$dir/log" 2>&1 < /dev/null
