#!/bin/sh
# Makes sure that bubblewrap is there: the sandbox engine runs containers with it.
# As root on a Debian-like machine it is installed; elsewhere one line says what to do.
set -eu
command -v bwrap >/dev/null 2>&1 && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing bubblewrap"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends bubblewrap >/dev/null
else
    echo "bubblewrap is missing: install it (Debian, Ubuntu: sudo apt-get install bubblewrap; Fedora: sudo dnf install bubblewrap)" >&2
    exit 1
fi
