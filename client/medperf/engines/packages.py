"""The packages of a sandboxed container: installed once by hash, outside, without running any of their code."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path

from medperf.engines.logs import last_lines
from medperf.errors import ClientError, EngineUnavailable, IntegrityError, StorageFailed
from medperf.files import make_private_folder, partial_folder, write_atomically
from medperf.manifest.model import Package

# Only what is already built, only what the manifest names, each with one of its hashes: nothing runs.
_PIP = ("install", "--only-binary", ":all:", "--require-hashes", "--no-deps", "--no-warn-script-location")
# pip, which dies with the client (prctl's PR_SET_PDEATHSIG and SIGKILL): nothing goes on unseen.
_MORTAL = """
import ctypes, os, runpy, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv.pop(1)):
    sys.exit(1)
sys.argv[0] = "pip"
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
# The same for wheels that are only fetched, perhaps for another Python.
_DOWNLOAD = ("download", "--only-binary", ":all:", "--require-hashes", "--no-deps")
_QUIET = ("--disable-pip-version-check", "--no-input", "--progress-bar", "off")


# What pip is to trust here, where a site has a CA of its own: it takes one file, in place of its own choice.
_TRUSTED = "trusted.pem"
# Wheels that a bundle brought, which pip looks at beside its index. They are held to their hashes like all others.
WHEELS = "wheels"
# Where pip's `requests` would look instead of that file; what they name is in it.
OTHER_BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
# A name and password in an address, as pip may print it.
_SECRETS = re.compile(r"//[^/@\s]+@")


def trust(root: Path, certificates: str | None) -> None:
    """Have every later `install` in `root` trust these certificates, one PEM text; None: pip's own choice."""
    file = root / _TRUSTED
    if certificates is None:
        file.unlink(missing_ok=True)
    elif not file.exists() or file.read_text() != certificates:
        make_private_folder(root)
        write_atomically(file, certificates)


def packages_folder(root: Path, packages: tuple[Package, ...]) -> Path:
    """Where exactly these packages for exactly this interpreter are kept, with their seal, once they are."""
    written = [[package.name, package.version, sorted(package.sha256)] for package in packages]
    interpreter = [sys.implementation.cache_tag, platform.python_version(), sysconfig.get_platform()]
    key = hashlib.sha256(json.dumps([sorted(written), interpreter]).encode()).hexdigest()
    return root / key[:40]


def install(root: Path, packages: tuple[Package, ...], *, on_line: Callable[[str], None]) -> Path:
    """The folder that holds `packages` as they were installed, installing them where it does not.

    What is there from before is hashed again: what somebody edited, or what was installed by halves, never runs.
    One process installs at a time. pip's output goes to `KEY.log` in `root`. Raises IntegrityError where what pip
    got has another hash, EngineUnavailable where it could not get it.
    """
    # Needs a package of its own, which is not there where an engine alone is tried.
    from medperf.assets import sealed

    folder = packages_folder(root, packages)

    def build(content: Path) -> None:
        on_line(f"installing packages: {', '.join(f'{package.name} {package.version}' for package in packages)}")
        try:
            _install(packages, content, log=root / f"{folder.name}.log")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    return sealed(folder, build)


def _check_pip() -> None:
    if importlib.util.find_spec("pip") is None:
        raise EngineUnavailable(
            "The sandbox needs pip, which is missing from the client's own Python environment",
            hint=f"Run `{sys.executable} -m ensurepip`, or install the client with `python3 -m venv` and pip.",
        )


def _install(packages: tuple[Package, ...], content: Path, *, log: Path) -> None:
    _check_pip()
    # Beside all else in the root, where the next command finds what is left of it.
    with partial_folder(content.parent) as work:
        target = work / "packages"
        brought = log.with_name(WHEELS)
        found = ("--find-links", str(brought)) if brought.is_dir() else ()
        _pip(packages, work, [*_PIP, "--target", str(target), *found], log=log)
        target.mkdir(exist_ok=True)
        # Whom root gives the container to is not the folder's owner, where owners cannot be mapped.
        target.chmod(0o755)
        target.rename(content)


def download(root: Path, packages: tuple[Package, ...], folder: Path, *, target: Sequence[str] = ()) -> None:
    """Fetch the wheels of packages into a folder, each by hash; `target` is pip's words for another machine.

    pip's output goes to `download.log` in `root`. Raises what `install` raises.
    """
    _check_pip()
    make_private_folder(root)
    with partial_folder(root / "download") as work:
        options = [*_DOWNLOAD, *target, "--dest", str(folder)]
        _pip(packages, work, options, log=root / "download.log")


def _pip(packages: tuple[Package, ...], work: Path, options: list[str], *, log: Path) -> None:
    """Run pip on exactly these packages; its output is kept in `log`."""
    requirements = work / "requirements.txt"
    requirements.write_text("".join(f"{_requirement(package)}\n" for package in packages))
    trusted = log.with_name(_TRUSTED)
    certificates = ("--cert", str(trusted)) if trusted.exists() else ()
    command = [sys.executable, "-I", "-c", _MORTAL, str(os.getpid()), *options, *_QUIET, *certificates]
    code = _run([*command, "-r", str(requirements)], work / "log", without=OTHER_BUNDLES if certificates else ())
    (work / "log").replace(log)
    if code != 0:
        raise _failed(log)


def _requirement(package: Package) -> str:
    hashes = " ".join(f"--hash=sha256:{digest}" for digest in package.sha256)
    return f"{package.name}=={package.version} {hashes}"


def _run(command: list[str], log: Path, *, without: tuple[str, ...]) -> int:
    environment = {name: value for name, value in os.environ.items() if name not in without}
    # What pip prints names indexes and temporary folders: it is for the log, not for the person's screen.
    with log.open("wb") as file:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    return done.returncode


def _failed(log: Path) -> ClientError:
    text = log.read_text(errors="replace")
    if os.strerror(errno.ENOSPC) in text:
        return StorageFailed(
            f"The disk was full while the container's packages were installed in {log.parent}.",
            hint=f"Make space, or point MEDPERF_HOME and TMPDIR elsewhere; then run it again. The log: {log}",
        )
    tail = "\n".join(f"    {_SECRETS.sub('//…@', line)}" for line in last_lines(log))
    if "DO NOT MATCH THE HASHES" in text:
        return IntegrityError(
            f"A package of the container is not the one that its manifest names; pip said\n{tail}",
            hint=f"Do not go on; tell the container's owner, and whoever runs the package index. The log: {log}",
        )
    if "CERTIFICATE_VERIFY_FAILED" in text:
        hint = (
            "If your site has a CA of its own, or a proxy that signs its connections, give that CA's file as"
            f" --ca FILE (MEDPERF_CA); otherwise do not go on. The log: {log}"
        )
    elif "No matching distribution" in text and "connection broken" not in text:
        hint = (
            f"There is no wheel of it for Python {platform.python_version()} on {sysconfig.get_platform()}, or "
            f"the package index does not have it: use another Python, or an engine with images. The log: {log}"
        )
    else:
        hint = (
            "Check that this machine reaches its package index; behind a proxy set HTTPS_PROXY, with a mirror set "
            f"PIP_INDEX_URL, offline set PIP_NO_INDEX and PIP_FIND_LINKS to a folder of wheels. The log: {log}"
        )
    return EngineUnavailable(f"The container's packages could not be installed; pip said\n{tail}", hint=hint)
