"""What can run containers here: found by running a small one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from medperf.errors import EngineUnavailable

from .findings import Check, Finding, Level

if TYPE_CHECKING:
    from medperf.engines.docker_connection import Daemon


def sandbox() -> Finding:
    """The sandbox, and what it cannot hold a container to here."""
    from medperf.engines.sandbox import SandboxEngine

    engine = SandboxEngine(Path())
    engine.probe()
    return _ran("", engine.weaknesses() or ("its memory and processes are bounded by a cgroup",))


def docker() -> Finding:
    """Docker, and whether its containers see this machine's files."""
    from medperf.engines.docker_connection import DOCKER

    return _of_daemon(DOCKER)


def podman() -> Finding:
    """Podman, and whether its containers see this machine's files."""
    from medperf.engines import docker_connection

    return _of_daemon(docker_connection.podman())


def apptainer() -> Finding:
    """Apptainer, and what it cannot hold a container to here."""
    from medperf.engines.apptainer import ApptainerEngine

    with TemporaryDirectory() as home:
        engine = ApptainerEngine(Path(home))
        return _ran(f" under {engine.probe()}", engine.weaknesses())


def _of_daemon(daemon: Daemon) -> Finding:
    from medperf.engines.docker import DockerEngine

    # What an engine writes for itself is of the local folder: here of none.
    with TemporaryDirectory() as home, closing(DockerEngine(Path(home), daemon)) as engine:
        return _ran(f" under {engine.probe()}", engine.weaknesses())


def _ran(where: str, weaknesses: tuple[str, ...]) -> Finding:
    return Finding(Level.OK, "; ".join((f"a small container ran{where}", *weaknesses)))


# Each runs a small container, and returns what it found or raises EngineUnavailable with the remedy.
ENGINES: Mapping[str, Callable[[], Finding]] = {
    "docker": docker,
    "podman": podman,
    "apptainer": apptainer,
    "sandbox": sandbox,
}


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
