#!/usr/bin/env bash
# run.sh: changes the pure core in every small way. At least 95 of 100 changes must be noticed by a test, and each that is
# not must stand in survivors.txt with the reason.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/../servers/common.sh"
mutants=$(dirname "$(readlink -f "$0")")
out=$cache/mutants
version=27.1.0
tool=$out/tool/bin/cargo-mutants
export CARGO_TARGET_DIR=$out/target
[ -x "$tool" ] || cargo install --quiet --locked --root "$out/tool" --version "$version" cargo-mutants
cd "$mutants/../../.."

mutate() { # PACKAGE TESTS FILE...: what was noticed and what was not lies in $out/PACKAGE/mutants.out
    local package=$1 code=0
    read -r -a tests <<< "$2"
    "$tool" mutants --package "$package" --profile mutants --no-shuffle --timeout 120 --colors never --output "$out/$package" \
        "${@:3}" -- "${tests[@]}" || code=$?
    # A change that nobody noticed (2) or that made a test endless (3) is no failure yet: all are counted together.
    case $code in 0 | 2 | 3) ;; *) exit "$code" ;; esac
}
rm -rf "$out"/*/mutants.out
mutate scheduler --lib --file shared/scheduler/src/schedule.rs --file shared/scheduler/src/schedule/cron.rs \
    --file shared/scheduler/src/policy.rs --file shared/scheduler/src/policy/answer.rs --file shared/scheduler/src/policy/instants.rs
mutate events "--test it" --file shared/events/src/envelope.rs --file shared/events/src/event.rs
mutate service-kit "--lib http::page" --file shared/service-kit/src/http/page.rs

noticed=$(cat "$out"/*/mutants.out/{caught,timeout}.txt | wc -l)
cat "$out"/*/mutants.out/missed.txt | sed -E 's/^([^:]+):[0-9]+:[0-9]+: /\1: /' | sort -u > "$out/survivors"
missed=$(cat "$out"/*/mutants.out/missed.txt | wc -l)
echo "$noticed of $((noticed + missed)) changes were noticed"
unexplained=$(grep -vxFf <(sed -n 's/^  //p' "$mutants/survivors.txt") "$out/survivors" || true)
if [ -n "$unexplained" ]; then
    echo "not noticed, and no reason in $mutants/survivors.txt:"
    echo "$unexplained"
    exit 1
fi
[ $((noticed * 100)) -ge $(((noticed + missed) * 95)) ] || { echo "fewer than 95 of 100"; exit 1; }
