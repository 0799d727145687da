#!/usr/bin/env bash
# kafka.sh fetch | run DIR PORT CONTROLLER [ADVERTISED]: a private Kafka in the foreground, which ends with its parent.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.sh"
libs=$cache/kafka/libs

fetch() { # once; afterwards neither Maven nor a network is needed
    [ ! -e "$libs/.complete" ] || return 0
    mvn -B -q -ntp -f "$servers/kafka/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$libs"
    touch "$libs/.complete"
}

jvm=(-Xms32m -Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:-UsePerfData -Dlog4j2.level=INFO -cp "$libs/*")

run() {
    local dir
    dir=$(readlink -m "$1")
    fetch
    mkdir -p "$dir/tmp"
    if [ ! -e "$dir/data/meta.properties" ]; then
        sed -e "s|@ADVERTISED@|${4:-127.0.0.1:$2}|" -e "s|@PORT@|$2|" -e "s|@CONTROLLER@|$3|" -e "s|@DIR@|$dir|" "$servers/kafka/server.properties" > "$dir/server.properties"
        # An id must not begin with a dash: it would be taken for an option.
        java "${jvm[@]}" kafka.tools.StorageTool format --standalone -c "$dir/server.properties" \
            -t "$(head -c 16 /dev/urandom | base64 | tr '+/' 'AB' | tr -d =)" > "$dir/log" 2>&1
    fi
    exec setpriv --pdeathsig KILL java "${jvm[@]}" -Djava.io.tmpdir="$dir/tmp" kafka.Kafka "$dir/server.properties" \
        > "$dir/log" 2>&1 < /dev/null
}

case ${1:-} in
    fetch) fetch ;;
    run) run "${@:2}" ;;
    *) sed -n 2p "$0" >&2; exit 2 ;;
esac
