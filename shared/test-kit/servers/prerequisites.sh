#!/usr/bin/env bash
# prerequisites.sh build | test: installs what is missing, where that is possible; else names the command that does.
set -euo pipefail

packages=()
need() { # PACKAGE COMMAND-OR-FILE
    { [ -e "$2" ] || command -v "$2" > /dev/null; } || packages+=("$1")
}

need build-essential cc
need build-essential make
need pkg-config pkg-config
need util-linux setpriv
need curl curl
[ -e /usr/include/openssl/ssl.h ] || packages+=(libssl-dev)
[ -e /usr/include/zlib.h ] || packages+=(zlib1g-dev)
if [ "${1:-build}" = test ]; then
    ls /usr/lib/postgresql/*/bin/postgres > /dev/null 2>&1 || packages+=(postgresql)
    need maven mvn
    need default-jre-headless java
    need python3 python3
    need procps /bin/kill # the shell's own is of no use to a program
    need strace strace # kills at a chosen call
    need valgrind valgrind # counts instructions and allocations
    need rsync rsync
    need patch patch
    python3 -c 'import venv, ensurepip' 2> /dev/null || packages+=(python3-venv)
    ls /usr/lib/*/faketime/libfaketimeMT.so.1 > /dev/null 2>&1 || packages+=(faketime)
fi

if ! command -v cargo > /dev/null; then
    echo "Rust is missing; install it as https://rustup.rs says" >&2
    exit 1
fi
[ ${#packages[@]} -gt 0 ] || exit 0

install="apt-get install -y --no-install-recommends ${packages[*]}"
if ! command -v apt-get > /dev/null; then
    echo "missing: ${packages[*]}; install them with your package manager" >&2
    exit 1
elif [ "$(id -u)" = 0 ]; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    $install -qq > /dev/null
elif sudo -n true 2> /dev/null; then
    sudo apt-get update -qq
    # shellcheck disable=SC2086
    sudo DEBIAN_FRONTEND=noninteractive $install -qq > /dev/null
else
    echo "missing: ${packages[*]}; run: sudo $install" >&2
    exit 1
fi
