"""A confinement as bubblewrap's command line: what of this machine a container's own code sees, and how.

Pure: facts about the machine come in, nothing is looked up here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from medperf.engines.base import TaskSpec
from medperf.engines.confinement import Caller, Confinement
from medperf.engines.mounts import Mount
from medperf.errors import EngineUnavailable

CODE = PurePosixPath("/mlcube_code")
PACKAGES = PurePosixPath("/mlcube_packages")
USR = PurePosixPath("/usr")
# Its own: the process that waits outside, and the first one inside.
OVERHEAD_PROCESSES = 2
# The user and group that the container sees itself as.
INSIDE_ID = 65534
OLDEST_BUBBLEWRAP = (0, 4, 0)
_HAS_SIZE = (0, 7, 0)
_HAS_DISABLE_USERNS = (0, 8, 0)
# What the sandbox says first, on its output: it has been made, and waits for a line on its stdin.
AT_GATE = b"\n"
# Behind it the container's environment begins: it must not reach the shell, which could say something first.
_GATE = ("/bin/sh", "-c", 'echo && read -r go && exec /usr/bin/env -i "$@" </dev/null', "sh")
# What the launcher puts each bind's source at when it starts as root; bubblewrap needs /tmp itself.
STAGE = PurePosixPath("/tmp")  # noqa: S108 - a tmpfs of the launcher's own mount namespace


@dataclass(frozen=True)
class Machine:
    """Facts that decide how a sandbox is made here."""

    caller: Caller
    home: Path
    bubblewrap: Path
    bubblewrap_version: tuple[int, ...]
    # Links resolved.
    interpreter: Path
    base_prefix: Path
    # /lib, /lib64, /bin, …: the link's target, or None for a real folder
    top_folders: Mapping[str, str | None]
    # The loader's own files, as /etc/ld.so.cache.
    loader_files: tuple[Path, ...]


@dataclass(frozen=True)
class Layout:
    """A confinement, and the sandbox's own world within it."""

    confinement: Confinement
    bubblewrap: Path
    command: tuple[str, ...]
    # Host paths that every sandbox sees, read-only.
    system: tuple[Mount, ...]
    # (target, path): how /lib and the like lead into /usr
    links: tuple[tuple[str, str], ...]
    # Host paths of this run, in the order in which they are mounted.
    mounts: tuple[Mount, ...]
    # The confinement's, or none where bubblewrap cannot bound them.
    memory_folders: Mapping[str, int]
    environment: Mapping[str, str]
    folder: PurePosixPath
    may_nest_namespaces: bool


def lay_out(
    spec: TaskSpec, confinement: Confinement, machine: Machine, *, packages: Path | None, scratch: Path
) -> Layout:
    """The sandbox of `spec` on `machine`.

    `packages` is the folder of the sandbox's packages. `scratch` is a fresh folder of the run on disk, used as
    /tmp where bubblewrap cannot bound one in memory (before 0.7); the engine counts it as output.
    """
    if spec.sandbox is None:
        raise EngineUnavailable(
            "This container has no sandbox section: it can only run as an image",
            hint="Use a machine with a container engine, or ask its owner for a sandbox section.",
        )
    if machine.bubblewrap_version < OLDEST_BUBBLEWRAP:
        raise EngineUnavailable(
            f"bubblewrap {'.'.join(map(str, machine.bubblewrap_version))} is too old",
            hint="Install bubblewrap 0.4 or later; 0.8 or later is best.",
        )
    bounded = machine.bubblewrap_version >= _HAS_SIZE
    own = [*_interpreter_mounts(machine)]
    if packages is not None:
        own.append(Mount(packages, PACKAGES, writable=False))
    if spec.code is not None:
        own.append(Mount(spec.code, CODE, writable=False))
    if not bounded:
        own.append(Mount(scratch, PurePosixPath("/tmp"), writable=True))  # noqa: S108 - the container's own
    program = spec.sandbox.command
    return Layout(
        confinement=confinement,
        bubblewrap=machine.bubblewrap,
        command=(*_program(program, machine), *spec.arguments),
        system=_system_mounts(machine),
        links=tuple((target, f"/{name}") for name, target in machine.top_folders.items() if target),
        mounts=(*own, *confinement.mounts),
        memory_folders=confinement.memory_folders if bounded else MappingProxyType({}),
        environment=MappingProxyType(
            {**confinement.environment, **_environment(machine, packages is not None)},
        ),
        folder=CODE if spec.code is not None else PurePosixPath("/"),
        may_nest_namespaces=machine.bubblewrap_version < _HAS_DISABLE_USERNS,
    )


def bubblewrap_command(layout: Layout, *, status_descriptor: int) -> tuple[str, ...]:
    """The command line; where the confinement has a real id, sources are those that the launcher stages.

    The container's command begins behind a gate, which `SandboxProcess` opens.

    `--unshare-all` takes the network away, `--cap-drop ALL` every capability, and without set-id programs that
    bubblewrap would obey (it sets no-new-privileges) none can be gained.
    """
    words = ["--unshare-all", "--unshare-user", "--cap-drop", "ALL"]
    words += ["--uid", str(INSIDE_ID), "--gid", str(INSIDE_ID), "--hostname", "container"]
    words += ["--die-with-parent", "--new-session", "--json-status-fd", str(status_descriptor)]
    if not layout.may_nest_namespaces:
        words.append("--disable-userns")
    for mount in layout.system:
        words += ["--ro-bind", str(mount.host), str(mount.inside)]
    for target, path in layout.links:
        words += ["--symlink", target, path]
    words += ["--proc", "/proc", "--dev", "/dev"]
    for path, size in layout.memory_folders.items():
        words += ["--size", str(size), "--tmpfs", path]
    for place, mount in enumerate(layout.mounts):
        source = mount.host if layout.confinement.real_id is None else STAGE / str(place)
        words += ["--bind" if mount.writable else "--ro-bind", str(source), str(mount.inside)]
    # Both are file systems in memory without a bound of their own.
    words += ["--remount-ro", "/dev", "--remount-ro", "/"]
    environment = {
        "PATH": layout.environment["PATH"],
        "PWD": str(layout.folder),
        **layout.environment,
    }
    words += ["--chdir", str(layout.folder), "--", *_GATE]
    words += [*(f"{name}={value}" for name, value in environment.items()), *layout.command]
    return (str(layout.bubblewrap), *words)


def _program(command: tuple[str, ...], machine: Machine) -> tuple[str, ...]:
    first = str(machine.interpreter) if command[0] in ("python", "python3") else command[0]
    return (first, *command[1:])


def _system_mounts(machine: Machine) -> tuple[Mount, ...]:
    real_folders = (Path("/") / name for name, target in machine.top_folders.items() if target is None)
    hosts = (Path(USR), *real_folders, *machine.loader_files)
    return tuple(Mount(host, PurePosixPath(host), writable=False) for host in hosts)


def _interpreter_mounts(machine: Machine) -> tuple[Mount, ...]:
    """The interpreter's installation at its own path, unless it is part of /usr."""
    installation = machine.base_prefix.resolve()
    if installation.is_relative_to(USR):
        return ()
    if machine.home.is_relative_to(installation) or not machine.interpreter.is_relative_to(installation):
        raise EngineUnavailable(
            f"The Python installation {installation} cannot be shown to a container alone",
            hint="Install the client with a Python that has a folder of its own: the system's, pyenv's or uv's.",
        )
    paths = dict.fromkeys((installation, machine.base_prefix))
    return tuple(Mount(installation, PurePosixPath(path), writable=False) for path in paths)


def _environment(machine: Machine, has_packages: bool) -> dict[str, str]:
    environment = {
        "PATH": f"{machine.interpreter.parent}:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
    }
    return {**environment, "PYTHONPATH": str(PACKAGES)} if has_packages else environment
