#!/bin/sh
# Types the README's commands on a machine that has nothing: a Debian root with python3, python3-venv, git and make.
#
#   tests/fresh_machine.sh [TARGET ...]        default: demo
#
# As root, with debootstrap. The root is entered by pivot_root in a mount namespace of its own, because in a plain
# chroot the kernel refuses the namespaces that bubblewrap needs. The host's package sources, pip settings and CA
# certificates are carried in; nothing else is.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
work=${FRESH_ROOT:-$(mktemp -d)}
root=$work/root
mirror=$(sed -n 's/^URIs: *//p; s/^deb \([^ ]*\) .*/\1/p' /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null | head -n 1)

if [ ! -d "$root/usr" ]; then
    mkdir -p "$root"
    debootstrap --variant=minbase --include=python3,python3-venv,git,make,ca-certificates bookworm "$root" "$mirror" >"$work/debootstrap.log"
    # debootstrap wrote the same source into sources.list: apt warns of one that it reads twice.
    if cp -a /etc/apt/sources.list.d/debian.sources "$root/etc/apt/sources.list.d/" 2>/dev/null; then
        : >"$root/etc/apt/sources.list"
    fi
    cp -a /usr/local/share/ca-certificates/. "$root/usr/local/share/ca-certificates/" 2>/dev/null || true
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
    [ -f /etc/pip.conf ] && cp /etc/pip.conf "$root/etc/pip.conf"
    for apt in /etc/apt/apt.conf.d/*prox*; do [ -f "$apt" ] && cp "$apt" "$root/etc/apt/apt.conf.d/"; done
    cp /etc/resolv.conf "$root/etc/resolv.conf"
fi
rm -rf "$root/srv/medperf"
git clone --quiet "$here" "$root/srv/medperf"

exec unshare --mount --pid --fork sh -eu -c '
    root=$1; shift
    mount --make-rprivate /
    mount --bind "$root" "$root"
    cd "$root"
    mkdir -p .old proc dev
    mount -t proc proc proc
    mount --rbind /dev dev
    pivot_root . .old
    umount -l /.old
    cd /srv/medperf
    exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 make "$@"
' fresh "$root" "${@:-demo}"
