"""What one task of a container is given: mounts, and its command line.

Where the manifest does not fix their places, they are where MLCube's Docker runner has them, and named on the
command line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from medperf.engines.mounts import Mount
from medperf.errors import BadManifest, IntegrityError, UsageError
from medperf.manifest.model import Kind, Parameter, Task

# A folder of more entries than this is not walked to its end: it is refused, so that the walk is bounded.
MAX_INPUT_ENTRIES = 2_000_000


@dataclass(frozen=True)
class IoPlan:
    mounts: tuple[Mount, ...]
    # What follows the image's own program.
    arguments: tuple[str, ...]
    # Output parameter -> the host file or folder that holds it after the run, in a folder of its name.
    outputs: Mapping[str, Path]


def plan_io(task: Task, *, bindings: Mapping[str, Path], workspace: Path, output_folder: Path) -> IoPlan:
    """Bind the task's parameters, its outputs to folders in `output_folder`, which whoever begins the run makes.

    `bindings` gives the caller's own file or folder for inputs; other inputs are the container's own, at their
    defaults in `workspace`. Each output gets a folder of its own, named like its parameter.
    Raises UsageError for a binding that is missing or overlaps an output, BadManifest for a workspace file that
    is missing, IntegrityError for links that leave their folder.
    """
    unknown = sorted(bindings.keys() - {parameter.name for parameter in task.inputs})
    if unknown:
        raise BadManifest(
            f"The task {task.name!r} has no input {unknown[0]!r}",
            hint="The container does not fit this use; its owner must correct the manifest.",
        )
    places = _Places()
    arguments = []
    for parameter in task.inputs:
        bound = bindings.get(parameter.name)
        if bound is None:
            inside = _own_input(places, task, parameter, workspace.resolve())
        else:
            inside = _bound_input(places, parameter, bound, output_folder.resolve())
        arguments.append(f"--{parameter.name}={inside}")
    outputs = {}
    for parameter in task.outputs:
        host = output_folder.resolve() / parameter.name
        if parameter.mount_path is not None:
            inside = parameter.mount_path
            host = host / inside.name if parameter.kind is Kind.FILE else host
            places.fixed(host, inside, writable=True)
        else:
            inside = places.folder(host, writable=True)
            if _output_kind(parameter) is Kind.FILE:
                name = PurePosixPath(parameter.default).name
                host, inside = host / name, inside / name
        outputs[parameter.name] = host
        arguments.append(f"--{parameter.name}={inside}")
    if task.command is not None:
        return IoPlan(tuple(places.mounts), task.command, outputs)
    first = list(task.entrypoint[1:]) if task.entrypoint else [task.name]
    return IoPlan(tuple(places.mounts), (*first, *arguments), outputs)


class _Places:
    """Gives out /mlcube_io0, /mlcube_io1, …: the same folder once, a file alone in a place of its own."""

    def __init__(self) -> None:
        self.mounts: list[Mount] = []

    def _next(self) -> PurePosixPath:
        return PurePosixPath(f"/mlcube_io{len(self.mounts)}")

    def folder(self, host: Path, *, writable: bool = False) -> PurePosixPath:
        for mount in self.mounts:
            if mount.host == host:
                return mount.inside
        self.mounts.append(Mount(host, self._next(), writable))
        return self.mounts[-1].inside

    def fixed(self, host: Path, inside: PurePosixPath, *, writable: bool = False) -> PurePosixPath:
        self.mounts.append(Mount(host, inside, writable))
        return inside

    def file(self, host: Path, name: str) -> PurePosixPath:
        self.mounts.append(Mount(host, self._next() / name, writable=False))
        return self.mounts[-1].inside


def _bound_input(places: _Places, parameter: Parameter, bound: Path, output_folder: Path) -> PurePosixPath:
    # The caller's own choice may be a link; what it leads to is what is mounted.
    host = bound.resolve()
    if not host.exists():
        raise UsageError(f"{bound} is not there ({parameter.name})", hint="Check the path.")
    if host.is_relative_to(output_folder) or output_folder.is_relative_to(host):
        raise UsageError(
            f"The input {parameter.name} ({bound}) and the run's output folder {output_folder} overlap",
            hint="Keep the data outside of the folder that the run writes to.",
        )
    _check_kind(parameter, host, f"{bound} ({parameter.name})")
    if host.is_dir():
        check_links(host, what=str(bound))
    if parameter.mount_path is not None:
        return places.fixed(host, parameter.mount_path)
    return places.file(host, bound.name) if host.is_file() else places.folder(host)


def _own_input(places: _Places, task: Task, parameter: Parameter, workspace: Path) -> PurePosixPath:
    host = workspace / parameter.default
    what = f"{parameter.default} (tasks.{task.name}.parameters.inputs.{parameter.name})"
    if not host.exists():
        raise BadManifest(
            f"The container's own file {what} is not there",
            hint="Its owner must add it to the parameters or the additional files.",
        )
    if not host.resolve().is_relative_to(workspace):
        raise IntegrityError(
            f"The container's own file {what} is a link out of its folder",
            hint="Its owner must put the file itself into the additional files.",
        )
    _check_kind(parameter, host, what)
    if parameter.mount_path is not None:
        if host.is_dir():
            check_links(host, what=str(host))
        return places.fixed(host, parameter.mount_path)
    if host.is_file():
        folder = host.parent
        check_links(folder, what=str(folder))
        return places.folder(folder) / host.name
    check_links(host, what=str(host))
    return places.folder(host)


def _check_kind(parameter: Parameter, host: Path, what: str) -> None:
    found = Kind.FILE if host.is_file() else Kind.DIRECTORY if host.is_dir() else None
    if found is None or parameter.kind not in (None, found):
        raise UsageError(
            f"{what} must be a {parameter.kind or 'file or directory'}, but is {found or 'something else'}",
            hint="Give a path of the right kind.",
        )


def _output_kind(parameter: Parameter) -> Kind:
    if parameter.kind is not None:
        return parameter.kind
    # Nothing is there yet to decide by: a name with a suffix is a file.
    return Kind.FILE if PurePosixPath(parameter.default).suffix else Kind.DIRECTORY


def check_links(folder: Path, *, what: str) -> None:
    """Raise IntegrityError, naming the link, where one inside `folder` leaves it or is absolute.

    In a container an absolute link leads to the container's files, not to the site's. UsageError, naming it, for
    what the caller cannot read: the container could not either.
    """
    top = folder.resolve()
    waiting = [top]
    entries = 0
    while waiting:
        current = waiting.pop()
        with _opened(current) as found:
            for entry in found:
                entries += 1
                if entries > MAX_INPUT_ENTRIES:
                    raise UsageError(
                        f"{what} holds more than {MAX_INPUT_ENTRIES:,} files",
                        hint="Split it into several datasets.",
                    )
                if entry.is_symlink():
                    _check_link(Path(entry.path), top, what)
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                elif not os.access(entry.path, os.R_OK):
                    raise _unreadable(Path(entry.path))


def _opened(folder: Path) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
    try:
        return os.scandir(folder)
    except PermissionError as error:
        raise _unreadable(folder) from error


def _unreadable(path: Path) -> UsageError:
    return UsageError(
        f"{path} cannot be read: Permission denied.",
        hint="Run medperf as a user who may read all of the data, or mend its permissions; it is only read.",
    )


def _check_link(link: Path, top: Path, what: str) -> None:
    target = link.readlink()
    if target.is_absolute() or not link.resolve().is_relative_to(top):
        raise IntegrityError(
            f"The link {link.relative_to(top)} in {what} leads out of the folder, to {target}",
            hint="Replace it by the file itself: only what is in the folder is given to a container.",
        )
