#!/usr/bin/env bash
# run.sh [PATCH...]: removes one protection after the other from a copy of the tree; the test that each patch names must
# fail, and must pass before. A patch that no longer applies, does not build, or that no test notices fails the run.
set -euo pipefail
. "$(dirname "$(readlink -f "$0")")/../servers/common.sh"
planted=$(dirname "$(readlink -f "$0")")
root=$(readlink -f "$planted/../../..")
copy=$cache/planted/tree
export CARGO_TARGET_DIR=$cache/planted/target
mkdir -p "$copy"
# Only what differs is written, with a new time: so little is built again, and nothing that an interrupted run had built counts.
(cd "$root" && git ls-files -z) | rsync --links --perms --checksum --delete --from0 --files-from=- "$root/" "$copy/"
cd "$copy"
# A story of random operations tells long before its full length.
export STORE_OPERATIONS=10000
failed=0 count=0
[ $# -gt 0 ] || set -- "$planted"/*.patch

# run_test PATCH: runs the test that the patch names, which must be there
run_test() {
    local test
    read -r -a test <<< "$(sed -n 's/^Test: //p' "$1")"
    cargo test --quiet "${test[@]:0:${#test[@]}-1}" -- "${test[-1]}" > "$cache/planted/log" 2>&1
}

# All first on the whole tree: it is built once.
for patch in "$@"; do
    if ! run_test "$patch" || ! grep -q 'test result: ok. [1-9]' "$cache/planted/log"; then
        echo "$(basename "$patch" .patch): its test does not pass while the protection is there"
        exit 1
    fi
done
for patch in "$@"; do
    count=$((count + 1))
    name=$(basename "$patch" .patch)
    if ! patch -p1 --forward --silent --dry-run < "$patch" > /dev/null; then
        echo "$name: does not apply any more"
        failed=1
        continue
    fi
    patch -p1 --forward --silent < "$patch"
    if run_test "$patch"; then
        echo "$name: NOT NOTICED"
        failed=1
    elif ! grep -q 'test result: FAILED' "$cache/planted/log"; then
        echo "$name: does not build"
        failed=1
    else
        echo "$name: noticed"
    fi
    patch -p1 --reverse --silent < "$patch"
done
echo "$count planted bugs"
exit "$failed"
