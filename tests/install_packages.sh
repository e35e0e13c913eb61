#!/bin/sh
# Installs Debian packages for the tests without starting what they bring: that is started by hand.
#
#   tests/install_packages.sh PACKAGE ...
set -eu
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "install_packages: $* must be installed by hand: this is not root on Debian" >&2
    exit 1
fi
# One at a time: several test processes may miss the same package.
exec 9>/run/lock/medperf-tests-install
flock 9
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
added=
finish() { [ -z "$added" ] || rm -f "$policy"; }
trap finish EXIT
trap 'exit 130' INT TERM
# Packages try to start their service.
[ -e "$policy" ] || { added=1; printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod 755 "$policy"; }
apt-get update -qq
apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=120 "$@" >/dev/null
