#!/bin/sh
# Runs a command with container engines: the Docker that answers, else Debian's docker.io, and Podman, which are started
# for this command only; and Apptainer.
#
#   tests/with_engines.sh [--networks] COMMAND [ARGUMENT ...]
#
# With --networks, containers of an engine started here can have networks; without, they have none and need none.
# What the tests need of them is in the folder that MEDPERF_TEST_ENGINE names: `base` holds the ID of an image with
# Python 3 once it is there (it is made while the first tests run), `failed` why there will be none. `podman-base` and
# `podman-failed` are the same of Podman, whose address is in CONTAINER_HOST; `rootless-base` and `rootless-failed` of a
# Podman without root: MEDPERF_TEST_ROOTLESS has its user's number and its address. That user is made for it. `base-sif`
# is the path of the same image as a Singularity file, and `sif-failed` why there is none: Apptainer is put here where it
# can be (tests/apptainer.sh).
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
podman_pid=
rootless_pid=
account=
base_pid=

finish() {
    [ -z "$base_pid" ] || kill "$base_pid" 2>/dev/null || true
    if [ -n "$dockerd_pid" ]; then
        kill "$dockerd_pid" 2>/dev/null || true
        wait "$dockerd_pid" 2>/dev/null || true
        # The engine's own network namespace stays mounted.
        for mounted in "$engine"/exec/netns/*; do umount "$mounted" 2>/dev/null || true; done
    fi
    if [ -n "$podman_pid" ]; then
        kill "$podman_pid" 2>/dev/null || true
        wait "$podman_pid" 2>/dev/null || true
        umount "$engine/podman/root/overlay" 2>/dev/null || true
    fi
    if [ -n "$account" ]; then
        [ -z "$rootless_pid" ] || kill "$rootless_pid" 2>/dev/null || true
        [ -z "$rootless_pid" ] || wait "$rootless_pid" 2>/dev/null || true
        # What keeps its namespaces open goes on without the service.
        pkill -KILL -u "$account" 2>/dev/null || true
        userdel "$account" 2>/dev/null || true
    fi
    rm -rf "$engine"
}
trap finish EXIT
trap 'exit 130' INT TERM

say() { echo "with_engines: $*" >&2; }

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

start_podman() {
    if ! command -v podman >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        install_packages podman
    fi
    if ! command -v podman >/dev/null; then
        echo "there is no podman: install it, or run the tests as root on Debian" >"$engine/podman-failed"
        return
    fi
    mkdir "$engine/podman"
    # Its own choice, crun, is not in every package.
    command -v crun >/dev/null || printf '[engine]\nruntime = "runc"\n' >"$engine/podman/containers.conf"
    [ ! -f "$engine/podman/containers.conf" ] || export CONTAINERS_CONF="$engine/podman/containers.conf"
    export CONTAINER_HOST="unix://$engine/podman.sock"
    # Where it works its conmon writes a file named `oom`.
    (cd "$engine/podman" && exec env -u CONTAINER_HOST podman --root "$engine/podman/root" --runroot "$engine/podman/run" \
        system service --time 0 "$CONTAINER_HOST" >"$engine/podman/log" 2>&1) &
    podman_pid=$!
}

start_rootless() {
    if [ "$(id -u)" != 0 ] || [ -z "$podman_pid" ]; then
        echo "a Podman without root is tested by root only, who makes a user for it" >"$engine/rootless-failed"
        return
    fi
    command -v newuidmap >/dev/null || install_packages uidmap
    account=medperf-test-$$
    useradd --system --no-create-home --home-dir "$engine/rootless" --shell /bin/sh "$account"
    usermod --add-subuids 1800000000-1800065535 --add-subgids 1800000000-1800065535 "$account"
    mkdir "$engine/rootless" "$engine/rootless/run"
    chmod 711 "$engine/rootless"
    chmod 700 "$engine/rootless/run"
    chown -R "$account:" "$engine/rootless"
    address="unix://$engine/rootless/podman.sock"
    export MEDPERF_TEST_ROOTLESS="$(id -u "$account") $address"
    (
        cd "$engine/rootless"
        unset CONTAINER_HOST
        export HOME="$engine/rootless" XDG_RUNTIME_DIR="$engine/rootless/run"
        # With what a user may have: root's own limits may be more than it could give its containers.
        exec prlimit --nproc=20000 --nofile=4096 setpriv --reuid="$account" --regid="$account" --init-groups \
            podman --storage-driver overlay --root "$engine/rootless/root" --runroot "$engine/rootless/run/containers" \
            system service --time 0 "$address" >"$engine/rootless-log" 2>&1
    ) &
    rootless_pid=$!
}

# fill ADDRESS NAME: gives the Podman there the base image, and says so in a file of that name.
fill() {
    { docker save "$base" | CONTAINER_HOST=$1 podman --remote load &&
        CONTAINER_HOST=$1 podman --remote tag "$base" medperf-test/base:latest; } >"$engine/$2-load" 2>&1 &&
        echo "$base" >"$engine/$2-base.part" && mv "$engine/$2-base.part" "$engine/$2-base" ||
        mv "$engine/$2-load" "$engine/$2-failed"
}

fill_podman() {
    [ -n "$podman_pid" ] || return 0
    base=$(cat "$engine/base")
    fill "$CONTAINER_HOST" podman
    [ -z "$rootless_pid" ] || fill "${MEDPERF_TEST_ROOTLESS#* }" rootless
}

make_sif() {
    wait "$apptainer_pid" || { mv "$engine/apptainer.log" "$engine/sif-failed"; return; }
    # Read a hundred times: not worth packing.
    { docker save -o "$engine/base.tar" "$(cat "$engine/base")" && chmod 644 "$engine/base.tar" &&
        apptainer build --mksquashfs-args '-noI -noD -noF -noX' "$engine/base.sif" "docker-archive:$engine/base.tar" &&
        rm "$engine/base.tar"; } >"$engine/sif.log" 2>&1 &&
        echo "$engine/base.sif" >"$engine/base-sif.part" && mv "$engine/base-sif.part" "$engine/base-sif" ||
        mv "$engine/sif.log" "$engine/sif-failed"
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
start_podman
start_rootless
{
    "$here/tests/apptainer.sh" >"$engine/apptainer.log" 2>&1 &
    apptainer_pid=$!
    make_base >"$engine/base.part" 2>"$engine/base.log" && mv "$engine/base.part" "$engine/base" || mv "$engine/base.log" "$engine/failed"
    [ ! -f "$engine/base" ] || { fill_podman; make_sif; }
} &
base_pid=$!

export MEDPERF_TEST_ENGINE="$engine"
"$@"
