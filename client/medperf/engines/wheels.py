"""Wheels for another Python or machine than this one, in pip's own words."""

from __future__ import annotations

import platform

MACHINES = ("x86_64", "aarch64")
# Debian 10 and whatever is newer. A wheel for an older glibc fits as well.
_NEWEST_GLIBC = 28
_OLD_NAMES = ("manylinux2014", "manylinux2010", "manylinux1", "linux")


def target_options(python_version: str, machine: str) -> list[str]:
    """pip's options for wheels of a Python such as 3.12 and a kind of machine; empty is this one's."""
    options = ["--python-version", python_version, "--implementation", "cp"] if python_version else []
    if python_version or machine:
        kind = machine or platform.machine()
        tags = [f"manylinux_2_{minor}" for minor in range(_NEWEST_GLIBC, 4, -1)] + list(_OLD_NAMES)
        options += [word for tag in tags for word in ("--platform", f"{tag}_{kind}")]
    return options
