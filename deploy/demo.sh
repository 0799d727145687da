#!/usr/bin/env bash
# demo.sh BELFRY: starts the platform on embedded defaults and tells a small story: three posts, each due in a few
# seconds, are published on time; their events are seen; the job says what it did. Then it runs on until Ctrl-C.
set -euo pipefail
belfry=$1
http=${HTTP_ADDR:-127.0.0.1:8080} admin=${ADMIN_ADDR:-127.0.0.1:9080}
export BELFRY_URL="http://$admin"
say() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

say "belfry up (SQLite files and the embedded event log under ./data)"
# In a session of its own: Ctrl-C is for this script, which asks it to stop once.
RUST_LOG=${RUST_LOG:-warn} setsid setpriv --pdeathsig TERM "$belfry" up &
platform=$!
stop() {
    trap - EXIT INT TERM
    kill -TERM "$platform" 2> /dev/null || true
    wait "$platform" 2> /dev/null || true
}
trap stop EXIT
trap 'stop; exit 0' INT TERM
until curl -fso /dev/null "http://$admin/readyz"; do
    kill -0 "$platform" 2> /dev/null || { wait "$platform"; exit 1; }
    sleep 0.1
done

say "Three posts, due in 2, 4 and 6 seconds. The job's interval is 5 minutes: it wakes when a post is due."
began=$(date -u +%Y-%m-%dT%H:%M:%SZ)
for seconds in 2 4 6; do
    at=$(date -u -d "+$seconds seconds" +%Y-%m-%dT%H:%M:%S.%6NZ)
    curl -fs "http://$http/api/blog/posts" -H 'content-type: application/json' \
        -d "{\"title\": \"A bell that rings in $seconds seconds\", \"content\": \"Due at *$at*.\", \"published_at\": \"$at\"}" > /dev/null
    echo "   due $at"
done

say "belfry events tail --type blog.post.scheduled.published"
"$belfry" events tail --since "$began" --type blog.post.scheduled.published --max 3

say "belfry jobs runs blog/post_publisher: how late was it?"
"$belfry" jobs runs blog/post_publisher --limit 3

say "It runs on: http://$http/docs, http://$admin/admin/v1/jobs. Ctrl-C stops it."
wait "$platform"
