#!/usr/bin/env bash
# run.sh [PATCH...]: removes one protection after the other from a copy of the tree; the test that each patch names must
# fail. A patch that no longer applies, does not build, or that no test notices fails the run.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/../servers/common.sh"
planted=$(dirname "$(readlink -f "$0")")
root=$(readlink -f "$planted/../../..")
copy=$cache/planted/tree
export CARGO_TARGET_DIR=$cache/planted/target
mkdir -p "$copy"
# Only what changed gets a new time, so that little is built again.
(cd "$root" && git ls-files -z) | rsync --archive --checksum --delete --from0 --files-from=- "$root/" "$copy/"
cd "$copy"
failed=0 count=0
[ $# -gt 0 ] || set -- "$planted"/*.patch
for patch in "$@"; do
    count=$((count + 1))
    name=$(basename "$patch" .patch)
    read -r -a test <<< "$(sed -n 's/^Test: //p' "$patch")"
    if ! patch -p1 --forward --silent --dry-run < "$patch" > /dev/null; then
        echo "$name: does not apply any more"
        failed=1
        continue
    fi
    patch -p1 --forward --silent < "$patch"
    if ! cargo test --quiet "${test[@]:0:${#test[@]}-1}" --no-run > "$cache/planted/log" 2>&1; then
        echo "$name: does not build"
        failed=1
    elif cargo test --quiet "${test[@]:0:${#test[@]}-1}" -- "${test[-1]}" > "$cache/planted/log" 2>&1; then
        echo "$name: NOT NOTICED by ${test[*]}"
        failed=1
    elif ! grep -q "test result: FAILED. 0 passed" "$cache/planted/log" && ! grep -q "test result: FAILED" "$cache/planted/log"; then
        echo "$name: the test did not run"
        failed=1
    else
        echo "$name: noticed"
    fi
    patch -p1 --reverse --silent < "$patch"
done
echo "$count planted bugs"
exit "$failed"
