"""What can run containers here: found by running a small one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path

from medperf.errors import EngineUnavailable

from .findings import Check, Finding, Level

_GIB = 1024**3


def sandbox() -> Finding:
    """The sandbox, and what bounds a container's memory and processes in it."""
    from medperf.engines.sandbox import SandboxEngine

    SandboxEngine(Path()).probe()
    return Finding(Level.OK, f"a small container ran; its memory and processes are bounded by {_bounded_by()}")


def docker() -> Finding:
    """Docker, and whether its containers see this machine's files."""
    from medperf.engines.docker import DockerEngine

    with closing(DockerEngine(Path())) as engine:
        return Finding(Level.OK, f"a small container ran under {engine.probe()}")


# Each runs a small container, and returns what it found or raises EngineUnavailable with the remedy.
ENGINES: Mapping[str, Callable[[], Finding]] = {"docker": docker, "sandbox": sandbox}


def wanted_platform(preferences: Path) -> tuple[str, str]:
    """The platform that a command would take, and who says so; UsageError for one that there is not."""
    from medperf.preferences import Preferences, platform_of_environment

    named = platform_of_environment()
    if named is not None:
        return named, "MEDPERF_PLATFORM asks for"
    return Preferences.load(preferences).platform, "An earlier command chose"


def engine_checks(
    engines: Mapping[str, Callable[[], Finding]] = ENGINES,
    *,
    platform: Callable[[], tuple[str, str]] = lambda: ("auto", ""),
) -> list[Check]:
    """A check for each engine, which is a warning at most, and one that what containers are to run in works."""
    working: list[str] = []

    def of_one(name: str, probe: Callable[[], Finding]) -> Finding:
        try:
            found = probe()
        except EngineUnavailable as error:
            return Finding(Level.WARNING, str(error), error.hint)
        working.append(name)
        return found

    def of_all() -> Finding:
        wanted, who = platform()
        if wanted != "auto" and wanted not in working:
            advice = "Mend it, or choose another: unset MEDPERF_PLATFORM, or give a command `--platform auto`."
            return Finding(Level.PROBLEM, f"{who} {wanted}, which can run none here", advice)
        if working:
            return Finding(Level.OK, f"{' and '.join(working)} can run them")
        return Finding(Level.PROBLEM, "no engine here can run one", "Mend one of the engines above.")

    each = [Check(f"engine {name}", partial(of_one, name, probe)) for name, probe in engines.items()]
    return [*each, Check("containers", of_all)]


def _bounded_by() -> str:
    """A cgroup where one can be made and joined, else the watcher, which is late by a moment."""
    from medperf.engines.cgroup import make_cgroup, read_hierarchies

    cgroup = make_cgroup("doctor", memory_bytes=_GIB, processes=64, cpus=None, hierarchies=read_hierarchies())
    try:
        with subprocess.Popen(
            [sys.executable, "-I", "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
        ) as waiting:
            cgroup.add(waiting.pid)
    except OSError:
        return "a watcher (no cgroup can be joined)"
    finally:
        cgroup.remove()
    if cgroup.memory is None or cgroup.processes is None:
        return "a watcher (no cgroup can be made)"
    return "a cgroup"
