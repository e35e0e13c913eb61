#!/bin/sh
# Runs a command with a container engine: the one that answers, else Debian's docker.io, started for this command only.
#
#   tests/with_docker.sh [--networks] COMMAND [ARGUMENT ...]
#
# With --networks, containers of an engine started here can have networks; without, they have none and need none.
# What the tests need of it is in the folder that MEDPERF_TEST_ENGINE names: `base` holds the ID of an image with
# Python 3 once it is there (it is made while the first tests run), `failed` why there will be none.
# MEDPERF_TEST_BASE may name an image to take as the base; else python:3.11-slim is pulled, and where no registry
# answers, one is made with debootstrap. That takes a minute, so it is kept in .cache/.
set -eu
networks=
[ "$1" != --networks ] || { networks=yes; shift; }
here=$(cd "$(dirname "$0")/.." && pwd)
engine=$(mktemp -d)
# A plain user who may talk to the engine passes through; what is in it has its own modes.
chmod 711 "$engine"
cache=$here/.cache/base-bookworm.tar
dockerd_pid=
base_pid=

finish() {
    [ -z "$base_pid" ] || kill "$base_pid" 2>/dev/null || true
    if [ -n "$dockerd_pid" ]; then
        kill "$dockerd_pid" 2>/dev/null || true
        wait "$dockerd_pid" 2>/dev/null || true
        # The engine's own network namespace stays mounted.
        for mounted in "$engine"/exec/netns/*; do umount "$mounted" 2>/dev/null || true; done
    fi
    rm -rf "$engine"
}
trap finish EXIT
trap 'exit 130' INT TERM

say() { echo "with_docker: $*" >&2; }

install_packages() {
    say "installing $*"
    "$here/tests/install_packages.sh" "$@"
}

start_dockerd() {
    command -v dockerd >/dev/null || install_packages docker.io
    # Networks are those that somebody makes: never the bridge that is there by itself.
    options=--bridge=none
    if [ -n "$networks" ]; then
        command -v iptables >/dev/null || install_packages iptables
    else
        options="$options --iptables=false --ip6tables=false"
    fi
    # shellcheck disable=SC2086
    dockerd $options --data-root "$engine/data" --exec-root "$engine/exec" --pidfile "$engine/pid" \
        --host "unix://$engine/docker.sock" >"$engine/log" 2>&1 &
    dockerd_pid=$!
    export DOCKER_HOST="unix://$engine/docker.sock"
    for _ in $(seq 1 240); do
        docker version >/dev/null 2>&1 && return 0
        kill -0 "$dockerd_pid" 2>/dev/null || break
        sleep 0.25
    done
    say "dockerd did not start:"
    tail -n 20 "$engine/log" >&2
    exit 1
}

make_base() {
    if [ -n "${MEDPERF_TEST_BASE:-}" ]; then
        docker image inspect --format '{{.Id}}' "$MEDPERF_TEST_BASE"
        return
    fi
    if [ ! -f "$cache" ] && timeout 60 docker pull --quiet python:3.11-slim >/dev/null 2>&1; then
        docker image inspect --format '{{.Id}}' python:3.11-slim
        return
    fi
    docker import "$("$here/tests/debian_base.sh" 2>"$engine/debootstrap.log")" medperf-test/base:latest
}

if ! docker version >/dev/null 2>&1; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        say "the tests of the Docker engine need one: start Docker, or run them as root on Debian, where it is installed"
        exit 1
    fi
    start_dockerd
fi
{ make_base >"$engine/base.part" 2>"$engine/base.log" && mv "$engine/base.part" "$engine/base" || mv "$engine/base.log" "$engine/failed"; } &
base_pid=$!

export MEDPERF_TEST_ENGINE="$engine"
"$@"
