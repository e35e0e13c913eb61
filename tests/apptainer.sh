#!/bin/sh
# Puts Apptainer on this machine for the tests, where they run as root on Debian and none is there.
#
#   tests/apptainer.sh
#
# Debian has it in its unstable suite only, made for a newer C library than a release has. It is taken from there by apt,
# which checks the signatures, and put with its own C library into one folder, from where it finds its other files. To be
# rid of it, remove what the last line names.
set -eu
prefix=/opt/apptainer-for-tests
here=$(cd "$(dirname "$0")" && pwd)
fail() { echo "apptainer: $*" >&2; exit 1; }

# As on any machine that it is installed on: who may read an image through FUSE.
[ "$(id -u)" != 0 ] || [ ! -c /dev/fuse ] || chmod 666 /dev/fuse
! command -v apptainer >/dev/null || exit 0
[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null ||
    fail "there is none: install it, or run the tests as root on Debian"
[ -c /dev/fuse ] || fail "there is no /dev/fuse, through which it reads images: modprobe fuse"
"$here/install_packages.sh" squashfs-tools squashfuse fuse-overlayfs patchelf

exec 9>/run/lock/medperf-tests-apptainer
flock 9
! command -v apptainer >/dev/null || exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# The mirror of the machine's own release, asked for another suite.
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    awk -v release="$release" '$2 == release && $3 == "main" { print $1; exit }')
[ -n "$mirror" ] || fail "apt names no mirror of Debian's $release"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
[ -f "$keys" ] || fail "$keys is not there: install debian-archive-keyring"
echo "deb [signed-by=$keys] $mirror sid main" >"$work/sources.list"
mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial" "$work/debs"
sid() {
    apt-get -qq -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
        -o Dir::State="$work/state" -o Dir::State::status=/var/lib/dpkg/status -o Dir::Cache="$work/cache" \
        -o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::Retries=3 \
        -o APT::Update::Error-Mode=any "$@"
}
sid update || fail "the package lists of Debian's unstable suite cannot be had"
(cd "$work/debs" && sid download apptainer libc6 libseccomp2 libsqlite3-0) || fail "its packages cannot be had"

rm -rf "$prefix"
mkdir -p "$prefix/libs"
for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$prefix/root"; done
program=$prefix/root/usr/bin/apptainer
loader=$(basename "$(patchelf --print-interpreter "$program")")
libexec=$(dirname "$(dirname "$(find "$prefix/root/usr/lib" -name starter -type f)")")
libraries=$(dirname "$libexec")
# In every package of a release: what its compiler adds to programs.
cp -a "$libraries"/*.so* "$prefix/libs/"
cp -L "/lib/$(basename "$libraries")/libgcc_s.so.1" "$prefix/libs/"
for file in "$program" "$libexec/bin/starter"; do
    patchelf --set-interpreter "$prefix/libs/$loader" "$file"
    patchelf --remove-rpath "$file"
    # Not RUNPATH, which the libraries of libraries are not looked for in.
    patchelf --force-rpath --set-rpath "$prefix/libs" "$file"
done
# Where its parts look, each from its own place.
mkdir -p "$prefix/root/usr/etc" "$prefix/root/usr/var/lib/apptainer/mnt/session" \
    "$prefix/root/usr/lib/var/lib/apptainer/mnt/session"
mv "$prefix/root/etc/apptainer" "$prefix/root/usr/etc/"
ln -s ../etc "$prefix/root/usr/lib/etc"
"$program" --version >"$work/version" 2>&1 || fail "it does not start: $(cat "$work/version")"
ln -sf "$program" /usr/bin/apptainer
echo "$(cat "$work/version"): $prefix /usr/bin/apptainer"
