"""Facts about this machine that the sandbox needs, and what to do where it cannot work."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

from medperf.engines.bubblewrap import Machine
from medperf.engines.confinement import Caller
from medperf.errors import EngineUnavailable

_TOP_FOLDERS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_LOADER_FILES = ("ld.so.cache", "ld-musl-x86_64.path", "ld-musl-aarch64.path")
_INSTALL = "Ask an administrator for `apt-get install bubblewrap` or `dnf install bubblewrap`."
_APPARMOR = (
    "This system's AppArmor keeps bubblewrap from working (Ubuntu 23.10 and later). An administrator writes\n"
    "  abi <abi/4.0>,\n"
    "  include <tunables/global>\n"
    "  profile bwrap {path} flags=(unconfined) {{ userns, }}\n"
    "to /etc/apparmor.d/bwrap and runs `apparmor_parser -r /etc/apparmor.d/bwrap`."
)
_SYSCTL = "An administrator allows user namespaces: `sysctl -w {name}={value}`, and the same in /etc/sysctl.d."
_NAMESPACES = (
    "This system forbids user namespaces to this process: a hardened kernel, a chroot, or a container without "
    "the right to make them. Run on the machine itself, or use a container engine."
)


def read_machine() -> Machine:
    """The facts, read now; raises EngineUnavailable where bubblewrap is not there or is not bubblewrap."""
    found = shutil.which("bwrap")
    if found is None:
        raise EngineUnavailable("bubblewrap (bwrap) is not installed on this machine", hint=_INSTALL)
    bubblewrap = Path(found).resolve()
    interpreter: str = getattr(sys, "_base_executable", None) or sys.executable
    return Machine(
        caller=read_caller(),
        home=Path.home().resolve(),
        bubblewrap=bubblewrap,
        bubblewrap_version=_version(bubblewrap),
        interpreter=Path(interpreter).resolve(),
        base_prefix=Path(sys.base_prefix),
        top_folders=MappingProxyType({name: _link(Path("/") / name) for name in _TOP_FOLDERS if _there(name)}),
        loader_files=tuple(path for name in _LOADER_FILES if (path := Path("/etc") / name).is_file()),
    )


def read_caller() -> Caller:
    """Who runs this process."""
    return Caller(os.getuid(), os.getgid(), _id_ranges(Path("/proc/self/uid_map").read_text()))


def remedy(output: str, bubblewrap: Path) -> str:
    """What to do about a bubblewrap that failed with `output`."""
    if _sysctl("kernel.apparmor_restrict_unprivileged_userns") == "1" and re.search("ermission|permitted", output):
        return _APPARMOR.format(path=bubblewrap)
    if setting := _forbidding_setting():
        return setting
    if "nknown option" in output:
        return "This bubblewrap is too old: install 0.8 or later."
    if re.search(r"[Nn]amespace|uid map|RTM_NEWADDR|unshare", output):
        return _NAMESPACES
    return "Look at the message above; `bwrap --unshare-all --ro-bind / / true` shows whether bubblewrap works."


def user_namespaces_remedy() -> str:
    """What to do where this process may make no user namespaces, or get no rights in them."""
    if _sysctl("kernel.apparmor_restrict_unprivileged_userns") == "1":
        # There is a profile for each program, and here the program is this Python.
        return _SYSCTL.format(name="kernel.apparmor_restrict_unprivileged_userns", value=0)
    return _forbidding_setting() or _NAMESPACES


def _forbidding_setting() -> str | None:
    if _sysctl("kernel.unprivileged_userns_clone") == "0":
        return _SYSCTL.format(name="kernel.unprivileged_userns_clone", value=1)
    if _sysctl("user.max_user_namespaces") == "0":
        return _SYSCTL.format(name="user.max_user_namespaces", value=10000)
    return None


def _version(bubblewrap: Path) -> tuple[int, ...]:
    shown = subprocess.run([bubblewrap, "--version"], capture_output=True, text=True, timeout=30, check=False)
    found = re.search(r"(\d+)\.(\d+)\.(\d+)", shown.stdout)
    if not found:
        raise EngineUnavailable(f"{bubblewrap} does not say its version", hint=_INSTALL)
    return tuple(int(part) for part in found.groups())


def _id_ranges(uid_map: str) -> tuple[tuple[int, int], ...]:
    fields = (line.split() for line in uid_map.splitlines())
    return tuple((int(inside), int(count)) for inside, _, count in fields)


def _there(name: str) -> bool:
    return (Path("/") / name).exists()


def _link(path: Path) -> str | None:
    return str(path.readlink()) if path.is_symlink() else None


def _sysctl(name: str) -> str | None:
    path = Path("/proc/sys") / name.replace(".", "/")
    return path.read_text().strip() if path.exists() else None


def read_own_limits() -> dict[str, int]:
    """How many open files and processes what this process starts can have at most: what it has, or the kernel."""
    most_processes = int(Path("/proc/sys/kernel/pid_max").read_text())
    limits = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
    found = {name: resource.getrlimit(number)[1] for name, number in limits.items()}
    own = {name: most for name, most in found.items() if most != resource.RLIM_INFINITY}
    return {**own, "nproc": min(own.get("nproc", most_processes), most_processes)}
