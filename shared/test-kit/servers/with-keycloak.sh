#!/usr/bin/env bash
# with-keycloak.sh COMMAND...: runs COMMAND beside a private Keycloak with the realm belfry, found in KEYCLOAK_URL.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/common.sh"
version=26.7.3
home=$cache/keycloak/keycloak-$version
if [ ! -e "$home/.built" ]; then # once: fetch, unpack, build for its embedded database
    command -v unzip > /dev/null || { echo "missing: unzip; run: apt-get install unzip" >&2; exit 1; }
    mkdir -p "$cache/keycloak"
    mvn -B -q -ntp org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
        -Dartifact=org.keycloak:keycloak-quarkus-dist:$version:zip -DoutputDirectory="$cache/keycloak"
    unzip -q -o -d "$cache/keycloak" "$cache/keycloak/keycloak-quarkus-dist-$version.zip"
    rm "$cache/keycloak/keycloak-quarkus-dist-$version.zip"
    JAVA_OPTS_APPEND=-XX:TieredStopAtLevel=1 "$home/bin/kc.sh" build --db=dev-file > "$cache/keycloak/build.log" 2>&1
    touch "$home/.built"
fi
dir=$(mktemp -d "${TMPDIR:-/tmp}/belfry-servers.XXXXXX")
mkdir -p "$dir/tmp"
port=$(free_ports 1)
# kc.sh keeps a shell around java, and killing that shell leaves java alone: start java itself.
kc=(java -Xms64m -Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1
    --add-opens=java.base/java.util=ALL-UNNAMED --add-opens=java.base/java.util.concurrent=ALL-UNNAMED
    --add-opens=java.base/java.security=ALL-UNNAMED --add-opens=java.base/java.lang=ALL-UNNAMED
    -Djava.util.concurrent.ForkJoinPool.common.threadFactory=io.quarkus.bootstrap.forkjoin.QuarkusForkJoinWorkerThreadFactory
    -Djava.util.logging.manager=org.jboss.logmanager.LogManager -Dpicocli.disable.closures=true
    -Dkc.home.dir="$home" -Djboss.server.config.dir="$home/conf" -Djava.io.tmpdir="$dir/tmp" -Dkc.db-url-path="$dir"
    -cp "$home/lib/quarkus-run.jar" io.quarkus.bootstrap.runner.QuarkusEntryPoint)
export KC_BOOTSTRAP_ADMIN_USERNAME=admin KC_BOOTSTRAP_ADMIN_PASSWORD=admin
"${kc[@]}" import --optimized --cache=local --file "$servers/keycloak/belfry-realm.json" > "$dir/import.log" 2>&1
setpriv --pdeathsig KILL "${kc[@]}" start --optimized --cache=local --http-enabled=true --hostname-strict=false \
    --http-host=127.0.0.1 --http-port="$port" > "$dir/log" 2>&1 < /dev/null & keycloak=$!
finish() {
    local code=$?
    trap - EXIT INT TERM HUP
    set +e
    kill -TERM "$keycloak" 2> /dev/null
    wait 2> /dev/null
    rm -rf "$dir"
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
until curl -fso /dev/null "http://127.0.0.1:$port/realms/belfry"; do
    alive "$keycloak" || { tail "$dir/log" >&2; exit 1; }
    sleep 0.2
done
export KEYCLOAK_URL="http://127.0.0.1:$port"
"$@"
