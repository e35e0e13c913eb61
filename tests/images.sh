#!/bin/sh
# Makes the images of docker-compose.yml; prints the variables by which it takes them, one a line.
#
#   tests/images.sh >FILE && docker-compose --env-file FILE up -d
#
# Those that a registry gives are taken as they are. Where none answers, Debian's packages are made into images with
# the same programs, paths and users, on a base that debootstrap makes.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

say() { echo "images: $*" >&2; }
default_of() { sed -n "s/.*\${$1:-\([^}]*\)}.*/\1/p" "$here/docker-compose.yml" | head -n 1; }

make_base() {
    docker image inspect medperf-test/base:bookworm >/dev/null 2>&1 \
        || docker import "$("$here/tests/debian_base.sh")" medperf-test/base:bookworm >/dev/null
    context=$work/context
    machine=$context/machine
    cp -r "$here/tests/images" "$context"
    mkdir -p "$machine/etc/apt/apt.conf.d" "$machine/etc/apt/sources.list.d" "$machine/etc/ssl/certs"
    if [ -f /etc/apt/sources.list.d/debian.sources ]; then
        cp /etc/apt/sources.list.d/debian.sources "$machine/etc/apt/sources.list.d/"
        : >"$machine/etc/apt/sources.list"  # debootstrap wrote the same into it
        # The images have no archive's keyring by the machine's own path.
        mkdir -p "$machine/usr/share" && cp -r /usr/share/keyrings "$machine/usr/share/"
    fi
    for file in /etc/apt/apt.conf.d/*prox*; do [ -f "$file" ] && cp "$file" "$machine/etc/apt/apt.conf.d/"; done
    cp -L /etc/ssl/certs/ca-certificates.crt "$machine/etc/ssl/certs/"
    { echo "[global]"; echo "cert = /etc/ssl/certs/ca-certificates.crt"; } >"$machine/etc/pip.conf"
    index=$(python3 -m pip config get global.index-url 2>/dev/null || true)
    [ -z "$index" ] || echo "index-url = $index" >>"$machine/etc/pip.conf"
}

# take VARIABLE TARGET: the image that docker-compose.yml names, or else one of ours.
take() {
    image=$(default_of "$1")
    if [ -z "${unreachable:-}" ] && timeout 120 docker pull --quiet "$image" >/dev/null 2>&1; then
        echo "$1=$image"
        return
    fi
    unreachable=yes
    [ -d "$work/context" ] || make_base
    say "building $2 of Debian's packages, as $image cannot be pulled"
    docker build --quiet --network host --build-arg BASE=medperf-test/base:bookworm --target "$2" \
        --tag "medperf-test/$2:bookworm" "$work/context" >/dev/null
    echo "$1=medperf-test/$2:bookworm"
}

take MEDPERF_BASE_IMAGE python >"$work/variables"
take RABBITMQ_IMAGE rabbitmq >>"$work/variables"
take POSTGRESQL_IMAGE postgresql >>"$work/variables"
take NGINX_IMAGE nginx >>"$work/variables"
base=$(sed -n 's/^MEDPERF_BASE_IMAGE=//p' "$work/variables")
say "building the project's image on $base"
image=$(default_of MEDPERF_IMAGE)
docker build --quiet --network host --file "$here/deploy/Dockerfile" --build-arg "BASE=$base" --tag "$image" "$here" >/dev/null
echo "MEDPERF_IMAGE=$image" >>"$work/variables"
cat "$work/variables"
