"""What an engine with Docker's API says of itself that decides how it is told."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from medperf.engines.docker_connection import DOCKER, Daemon
from medperf.engines.docker_options import EngineFacts
from medperf.engines.machine import read_own_limits
from medperf.engines.seccomp import write_filter

if TYPE_CHECKING:
    from docker import DockerClient

# What of a container it can bound, by its own word; and the cgroup controller for it, where it names those it has.
_BOUNDS = {"memory": "MemoryLimit", "processes": "PidsLimit", "processors": "CpuCfsQuota"}
_CONTROLLERS = {"memory": "memory", "processes": "pids", "processors": "cpu"}
_LIBPOD_INFO = "/v4.0.0/libpod/info"


def read_facts(client: DockerClient, daemon: Daemon, home: Path) -> EngineFacts:
    """The facts, asked now; `home` is the local folder, where a filter of system calls is written for it."""
    info = client.info()
    options = " ".join(info.get("SecurityOptions") or ())
    is_rootless = "name=rootless" in options
    cannot_bound = frozenset(bound for bound, key in _BOUNDS.items() if info.get(key) is False)
    if daemon is not DOCKER:
        # By Docker's API a rootless Podman says that it has root, and that it bounds what it cannot.
        host = _libpod_host(client)
        is_rootless = bool(host["security"]["rootless"])
        if is_rootless:
            cannot_bound = without_cgroups(host)
    return EngineFacts(
        is_rootless=is_rootless,
        remaps_ids="name=userns" in options,
        has_selinux="name=selinux" in options,
        cannot_bound=cannot_bound,
        memory_folders=tuple(PurePosixPath(path) for path in daemon.memory_folders),
        seccomp=write_filter(daemon.seccomp, home / "engines"),
        own_limits=read_own_limits() if daemon is not DOCKER else {},
        gpu_driver=daemon.gpu_driver,
        gpu_prefix=daemon.gpu_prefix,
    )


def _libpod_host(client: DockerClient) -> dict[str, Any]:
    """What Podman says of itself and its machine by its own API."""
    answer = client.api.get(f"{client.api.base_url}{_LIBPOD_INFO}", timeout=client.api.timeout)
    answer.raise_for_status()
    host: dict[str, Any] = answer.json()["host"]
    return host


def without_cgroups(host: dict[str, Any]) -> frozenset[str]:
    """Which bounds a rootless Podman cannot hold, by what it says of its cgroups: of version 1 it has none."""
    given = set(host["cgroupControllers"] or ()) if host["cgroupVersion"] == "v2" else set()
    return frozenset(bound for bound, controller in _CONTROLLERS.items() if controller not in given)
