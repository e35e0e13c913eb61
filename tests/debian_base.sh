#!/bin/sh
# A Debian root with Python 3 and pip as an archive for `docker import`; prints where it is. Made once, kept in .cache/.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
archive=$here/.cache/base-bookworm.tar
if [ ! -f "$archive" ]; then
    command -v debootstrap >/dev/null || "$here/tests/install_packages.sh" debootstrap >&2
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mirror=$(sed -n 's/^URIs: *//p; s/^deb \([^ ]*\) .*/\1/p' /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null | head -n 1)
    debootstrap --variant=minbase --include=python3-minimal,python3-pip bookworm "$work/root" "$mirror" >&2
    mkdir -p "$(dirname "$archive")"
    tar -C "$work/root" --exclude=./var/cache/apt/archives/*.deb -cf "$archive.$$" .
    mv "$archive.$$" "$archive"
fi
echo "$archive"
