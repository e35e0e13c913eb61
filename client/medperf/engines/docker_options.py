"""A confinement as Docker's options: what `docker run` would be told, as the SDK takes it.

Pure: facts about the engine come in, nothing is looked up here. Podman's API takes the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from medperf.engines.base import TaskSpec
from medperf.engines.confinement import Caller, Confinement
from medperf.errors import EngineUnavailable

RUN_LABEL = "org.medperf.run"
HOME_LABEL = "org.medperf.home"
# An engine that cannot hold a bound refuses whoever asks for it.
_OF_A_BOUND = {"memory": ("mem_limit", "memswap_limit"), "processes": ("pids_limit",), "processors": ()}
_NANO = 1_000_000_000
_EVERY_ID = (0, 2**32 - 1)


@dataclass(frozen=True)
class EngineFacts:
    """What decides how this engine is told."""

    # A rootless engine: its user 0 is the caller's own, unprivileged one, whose files no other id of it can read.
    is_rootless: bool
    # Whether the engine gives containers other ids than those that they are told.
    remaps_ids: bool
    # Whether SELinux keeps containers from files that are not labelled as theirs.
    has_selinux: bool = False
    # Which of memory, processes and processors it cannot bound: a rootless one without cgroups of its own.
    cannot_bound: frozenset[str] = frozenset()
    # Folders of a container that it makes memory anyhow: they are bounded like `/tmp`.
    memory_folders: tuple[PurePosixPath, ...] = ()
    # A filter of system calls that is given to it; None leaves it its own.
    seccomp: Path | None = None
    # Limits of files and processes that the caller itself has, where the engine would ask for more than it may.
    own_limits: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    # How it is asked for a GPU: by which driver, and what stands before the UUID.
    gpu_driver: str = "nvidia"
    gpu_prefix: str = ""


def docker_options(
    spec: TaskSpec,
    confinement: Confinement,
    *,
    image_id: str,
    volumes: tuple[PurePosixPath, ...],
    caller: Caller,
    facts: EngineFacts,
    home: Path,
) -> dict[str, Any]:
    """Arguments of the SDK's `containers.create`.

    `volumes` are the folders that the image declares as such: the engine would give it each on the host's disk,
    writable and without a bound, so that they become folders in memory like `/tmp`.
    """
    import docker.types

    limits = confinement.limits
    covered = {mount.inside for mount in confinement.mounts}
    memory = {PurePosixPath(path): size for path, size in confinement.memory_folders.items()}
    shm = memory.pop(PurePosixPath("/dev/shm"))  # noqa: S108 - the container's own
    memory |= {
        path: limits.tmp_bytes for path in (*volumes, *facts.memory_folders) if path not in covered | memory.keys()
    }
    options: dict[str, Any] = {
        "image": image_id,
        "command": list(spec.arguments),
        "labels": {RUN_LABEL: spec.run_id, HOME_LABEL: str(home)},
        "hostname": "container",
        "environment": dict(confinement.environment),
        # Else the SDK adds the proxies of the caller's own Docker configuration, with their passwords.
        "use_config_proxy": False,
        "user": _user(confinement, caller, facts),
        "network_mode": "bridge" if confinement.has_network else "none",
        "read_only": not confinement.root_is_writable,
        "cap_drop": ["ALL"],
        "cap_add": sorted(confinement.capabilities),
        "security_opt": [] if confinement.may_gain_privileges else ["no-new-privileges:true"],
        "mounts": [
            docker.types.Mount(
                str(mount.inside),
                str(mount.host),
                type="bind",
                read_only=not mount.writable,
                propagation="rprivate",
            )
            for mount in confinement.mounts
        ],
        "tmpfs": {str(path): f"rw,exec,nosuid,nodev,mode=1777,size={size}" for path, size in memory.items()},
        "shm_size": shm,
        "mem_limit": limits.memory_bytes,
        # Memory and swap together: no more than the memory alone.
        "memswap_limit": limits.memory_bytes,
        "pids_limit": limits.processes,
        "ulimits": [
            docker.types.Ulimit(name="fsize", soft=limits.output_bytes, hard=limits.output_bytes),
            docker.types.Ulimit(name="core", soft=0, hard=0),
            *(docker.types.Ulimit(name=name, soft=most, hard=most) for name, most in facts.own_limits.items()),
        ],
        # The engine's own copy of the output, from which a client reads; what we keep of it is bounded apart.
        "log_config": docker.types.LogConfig(
            type="json-file", config={"max-size": str(limits.log_bytes), "max-file": "2"}
        ),
        # An image's own health check would run beside the task.
        "healthcheck": {"test": ["NONE"]},
        "stdin_open": False,
        "tty": False,
        "detach": True,
    }
    if spec.entrypoint is not None:
        options["entrypoint"] = [spec.entrypoint]
    if facts.seccomp is not None:
        options["security_opt"].append(f"seccomp={facts.seccomp}")
    if facts.has_selinux:
        # The other way, labels on the files, would change the data owner's own.
        options["security_opt"].append("label=disable")
    for bound in facts.cannot_bound:
        for option in _OF_A_BOUND[bound]:
            options.pop(option, None)
    if limits.cpus is not None and "processors" not in facts.cannot_bound:
        options["nano_cpus"] = round(limits.cpus * _NANO)
    if facts.remaps_ids:
        options["userns_mode"] = "host"
    if limits.gpus:
        names = [f"{facts.gpu_prefix}{gpu}" for gpu in limits.gpus]
        options["device_requests"] = [
            docker.types.DeviceRequest(driver=facts.gpu_driver, device_ids=names, capabilities=[["gpu"]])
        ]
    return options


def _user(confinement: Confinement, caller: Caller, facts: EngineFacts) -> str:
    if facts.is_rootless:
        return "0:0"
    if caller.uid == 0 and _EVERY_ID not in caller.id_ranges:
        # An id of this namespace is another one to the engine, and 0 is its machine's root.
        raise EngineUnavailable(
            "Here root is root of a user namespace only, whose users the engine does not know",
            hint="Run medperf as a user of the machine itself, use a rootless engine, or `--platform sandbox`.",
        )
    if confinement.real_id is not None:
        return f"{confinement.real_id}:{confinement.real_id}"
    return f"{caller.uid}:{caller.gid}"
