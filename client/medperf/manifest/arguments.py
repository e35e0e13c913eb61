"""What of an engine's arguments in a manifest counts, and what is refused: the `docker` section of an MLCube."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from medperf.manifest.model import Docker, Gpus
from medperf.manifest.rules import gpu_count, refuse

_ARGUMENT_KEYS = ("gpu_args", "cpu_args", "run_args")
_COUNTS = {"-e": "env", "--env": "env", "--gpus": "gpus", "--shm-size": "shm", "--entrypoint": "entrypoint"}
# Without effect on a run that is always removed and has no terminal.
_HARMLESS = frozenset({"--rm", "-i", "-t", "-it", "-ti", "--interactive", "--tty", "--init"})
_REFUSED = {
    "a mount": ("-v", "--volume", "--mount", "--volumes-from", "--tmpfs", "--volume-driver", "--workdir", "-w"),
    "network": ("--net", "--network", "--add-host", "--dns", "--link", "--hostname", "-h", "--ip"),
    "ports": ("-p", "--publish", "-P", "--publish-all", "--expose"),
    "privileges": (
        "--privileged", "--cap-add", "--cap-drop", "--device", "--device-cgroup-rule", "--security-opt", "--pid",
        "--ipc", "--uts", "--userns", "--cgroupns", "--cgroup-parent", "--user", "-u", "--group-add", "--runtime",
        "--sysctl", "--oom-score-adj", "--oom-kill-disable", "--ulimit", "--env-file",
    ),
}  # fmt: skip
_REASONS = {option: reason for reason, options in _REFUSED.items() for option in options}
_SIZE = re.compile(r"(\d{1,12})([bkmg]?)b?", re.IGNORECASE)
_FACTORS = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_MAX_SHM_BYTES = 64 * 1024**3
# Registry host, path, tag and digest; nothing that the engine's command line could take for an option.
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,254}")


def parse_docker(section: Mapping[str, Any]) -> tuple[Docker, Gpus | None]:
    """The model of a `docker` section, and the GPUs that its arguments ask for, where they say.

    Mounts, network, ports and privileges are refused by name.
    """
    image = image_name(section.get("image"), "docker.image")
    environment: dict[str, str] = {}
    found: dict[str, str] = {}
    shm_bytes = None
    gpus: Gpus | None = None
    for name in _ARGUMENT_KEYS:
        key = f"docker.{name}"
        for option, value in _options(section.get(name), key):
            if option == "env":
                variable, _, content = value.partition("=")
                environment[variable] = content
            elif option == "shm":
                shm_bytes = size(value, key)
            elif option == "gpus":
                gpus = gpu_count(value, key)
            else:
                found[option] = value
    docker = Docker(
        image=image,
        environment=MappingProxyType(environment),
        entrypoint=found.get("entrypoint"),
        shm_bytes=shm_bytes,
    )
    return docker, gpus


def _options(written: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(written, dict):
        written = [f"--{name.replace('_', '-')}={value}" for name, value in written.items()]
    if written is not None and not isinstance(written, str | list):
        refuse(key, "must be text")
    try:
        words = shlex.split(written) if isinstance(written, str) else [str(word) for word in written or ()]
    except ValueError:
        refuse(key, "has a quote that is not closed")
    remaining = iter(words)
    for word in remaining:
        option, has_value, value = word.partition("=")
        if not option.startswith("--") and option[:2] in _COUNTS.keys() | _REASONS.keys() and len(option) > 2:
            option, has_value, value = option[:2], "=", word[2:]  # as in -v/data:/data
        if option in _HARMLESS:
            continue
        if option in _REASONS:
            refuse(key, f"asks for {_REASONS[option]} ({option}); the site decides that")
        if option not in _COUNTS:
            refuse(key, f"holds {option!r:.60}; only {', '.join(sorted(_COUNTS))} count")
        if not has_value:
            value = next(remaining, "")
        if not value:
            refuse(key, f"{option} has no value")
        yield _COUNTS[option], value


def image_name(written: Any, key: str) -> str:
    """An image's name as a registry knows it."""
    if not isinstance(written, str) or not _IMAGE.fullmatch(written):
        refuse(key, "must name an image")
    return written


def size(written: str, key: str) -> int:
    """A size of shared memory, such as 8g, in bytes."""
    found = _SIZE.fullmatch(written)
    wanted = int(found[1]) * _FACTORS[found[2].lower()] if found else 0
    if not 0 < wanted <= _MAX_SHM_BYTES:
        refuse(key, f"asks for --shm-size {written!r:.40}; it must be a size up to 64g")
    return wanted
