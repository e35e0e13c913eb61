"""What Docker is given to read: read-only as a whole, and readable to the user that the container is."""

from __future__ import annotations

import stat

from medperf.engines.mounts import Mount, mounted_inside
from medperf.errors import EngineUnavailable, UsageError


def check_read_only(mount: Mount) -> None:
    """Raise EngineUnavailable for an input that a container could write to in part.

    What is mounted inside a read-only mount is read-only only from Docker 25 and Linux 5.12 on, and an engine that
    cannot do it does not say so.
    """
    for inner in mounted_inside(mount.host):
        raise EngineUnavailable(
            f"Another file system is mounted at {inner}, inside an input: Docker may let a container write to it",
            hint="Use the sandbox (`--platform sandbox`), or data that has no mount inside.",
        )


def make_readable(mount: Mount, *, own: bool) -> None:
    """Make an input of ours readable to the run's user, who is not its owner; UsageError for one that is not ours.

    What is ours lies below a folder that only its owner may enter, so that nobody else gains by it.
    """
    waiting = [mount.host]
    while waiting:
        path = waiting.pop()
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            continue
        wanted = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
        if mode & wanted != wanted:
            if not own:
                raise UsageError(
                    f"{path} can only be read by its owner; Docker runs the container as another user, since root"
                    " is what no container is",
                    hint=f"Run medperf as the user who owns the data, or `chmod -R a+rX {mount.host}`.",
                )
            path.chmod(stat.S_IMODE(mode) | wanted)
        if stat.S_ISDIR(mode):
            waiting.extend(path.iterdir())
