"""The way to an engine with Docker's API: asked once and with a bound whether it answers; else what is said."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from medperf.engines.base import EngineSilent
from medperf.errors import ClientError, EngineUnavailable

if TYPE_CHECKING:
    from docker import DockerClient

# An engine that says who it is takes milliseconds; one that takes longer than this answers nobody.
FIRST_ANSWER_SECONDS = 8
# A question of its work may take longer; a run itself has its own limit.
_ANSWER_SECONDS = 60
_SCHEMES = ("unix", "tcp", "http", "https")
_LOCAL_FILES = (
    "Is the engine on another machine, in a virtual one, or kept from this one's files? It must see the local"
    " folder (MEDPERF_HOME) and the data; else use `--platform sandbox`."
)
_OF_GPUS = r"device driver|cdi device|nvidia"
_NO_TOOLKIT = (
    "GPUs reach containers by NVIDIA's container toolkit (`nvidia-ctk`): install and configure it for this engine,"
    " or use `--gpus 0` to run on the processors."
)
# What a daemon that works says of what it was asked for -> what to do.
_ADVICE = (
    (_OF_GPUS, _NO_TOOLKIT),
    (r"range of cpus|cpu", "Ask for no more processors with --cpus than this machine has."),
    (r"memory", "Give another --memory_limit: no less than a few MB, and no more than this machine has."),
    (r"bind source path|bind mount|not shared", _LOCAL_FILES),
    (r"no such container", "Somebody removed it while it ran. Run the same command again."),
    (r"mount|volume|tmpfs", "It is how the image is made: tell its owner, or use `--platform sandbox`."),
)
_OTHERWISE = (
    "{title} itself answers. Mend what it names, or use `--platform sandbox`; if it is the image, tell its owner."
)
_ITS_LOG = "It is a fault of the engine's: look at its log (`{log}`) and its disk, and restart it."


@dataclass(frozen=True)
class Daemon:
    """An engine with Docker's API: what it is called, and how it is found."""

    # As a platform, and as people write it.
    name: str
    title: str
    # The environment variable that says where it is.
    variable: str
    # Where it is else: the first that is there.
    sockets: tuple[str, ...]
    how_to_start: str
    log: str
    # Whether it always says that a container ended for want of memory.
    tells_out_of_memory: bool = True
    # Where it gives a container memory to write to, unasked and without a bound.
    memory_folders: tuple[str, ...] = ()
    # Its system-call filter, where that lets a container make namespaces: it is given one without them.
    seccomp: tuple[str, ...] = ()
    # How GPUs are asked for: by Docker's own driver, or by their names in CDI, the Container Device Interface.
    gpu_driver: str = "nvidia"
    gpu_prefix: str = ""
    # The first version that heeds what it is asked for; earlier ones pass over it in silence.
    gives_gpus_from: tuple[int, ...] | None = None

    @property
    def address(self) -> str:
        """Where it is looked for."""
        return os.environ.get(self.variable) or self.usual_address

    @property
    def usual_address(self) -> str:
        """Where it is looked for if nobody says otherwise."""
        # What lies in a folder that only another may enter is not there.
        found = (path for path in self.sockets if os.path.exists(path))  # noqa: PTH110 - Path.exists raises there
        return f"unix://{next(found, self.sockets[0])}"


DOCKER = Daemon(
    name="docker",
    title="Docker",
    variable="DOCKER_HOST",
    sockets=("/var/run/docker.sock",),
    how_to_start=(
        "Start it (Debian, Ubuntu: `sudo systemctl start docker`), or ask to be let in (the group `docker`)."
    ),
    log="journalctl -u docker",
)


def podman() -> Daemon:
    """Podman: root's, or whoever's the caller is."""
    own = f"{os.environ.get('XDG_RUNTIME_DIR') or f'/run/user/{os.getuid()}'}/podman/podman.sock"
    of_root = "/run/podman/podman.sock"
    is_root = os.getuid() == 0
    start = "systemctl start podman.socket" if is_root else "systemctl --user start podman.socket"
    return Daemon(
        name="podman",
        title="Podman",
        variable="CONTAINER_HOST",
        sockets=(of_root,) if is_root else (own, of_root),
        how_to_start=f"Start its service: `{start}`; without systemd, `podman system service --time 0 &`.",
        log="journalctl -u podman" if is_root else "journalctl --user -u podman",
        tells_out_of_memory=False,
        memory_folders=("/run", "/var/tmp"),  # noqa: S108 - the container's own
        seccomp=("/etc/containers/seccomp.json", "/usr/share/containers/seccomp.json"),
        gpu_driver="cdi",
        gpu_prefix="nvidia.com/gpu=",
        # containers/podman pull request 25171
        gives_gpus_from=(5, 4),
    )


def connect(daemon: Daemon = DOCKER) -> DockerClient:
    """A client of the engine, which has answered.

    EngineUnavailable where none does, EngineSilent where one takes a connection and says nothing.
    """
    _check_address(daemon)
    _check_socket(daemon)
    with answering(daemon):
        import docker  # as long as a small command takes, and of use only where something listens

        # Its certificates too are in the environment, by Docker's names.
        where = {**os.environ, "DOCKER_HOST": daemon.address}
        with closing(docker.from_env(timeout=FIRST_ANSWER_SECONDS, environment=where)) as asked:
            version = asked.api.api_version
        return docker.from_env(version=version, timeout=_ANSWER_SECONDS, environment=where)


@contextmanager
def answering(daemon: Daemon = DOCKER) -> Iterator[None]:
    """Turn the SDK's ways to fail into one that a person can act on."""
    try:
        yield
    except ClientError:
        raise
    except Exception as error:
        said = _in_words(error, daemon)
        if said is None:
            raise
        raise said from error


def _in_words(error: Exception, daemon: Daemon) -> EngineUnavailable | None:
    """What an error of the SDK's means; None for one that is another's."""
    import requests
    from docker.errors import APIError, DockerException
    from urllib3.exceptions import HTTPError

    where = daemon.address
    if isinstance(error, APIError) and error.status_code is not None:
        said = str(error.explanation or error).strip().splitlines()[0]
        return EngineUnavailable(
            f"{daemon.title} refuses at {where}: {said}", hint=_advice(error.status_code, said, daemon)
        )
    if not isinstance(error, DockerException | requests.RequestException | HTTPError):
        return None
    whys = list(_causes(error))
    if any(isinstance(why, TimeoutError | requests.Timeout) or "timed out" in str(why) for why in whys):
        return EngineSilent(
            f"{daemon.title} takes connections at {where}, but does not answer",
            hint=_hint(f"Restart it. {_ITS_LOG.format(log=daemon.log)}", daemon),
        )
    why = next((one.strerror for one in whys if isinstance(one, OSError) and one.strerror), None)
    return EngineUnavailable(
        f"No {daemon.title} engine answers at {where} ({why or 'the connection was lost'})",
        hint=_hint(daemon.how_to_start, daemon),
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _advice(status: int, said: str, daemon: Daemon) -> str:
    if status >= 500 and not re.search(f"bind source|no such container|mount|{_OF_GPUS}", said, re.IGNORECASE):
        return _ITS_LOG.format(log=daemon.log)
    otherwise = _OTHERWISE.format(title=daemon.title)
    return next((advice for what, advice in _ADVICE if re.search(what, said, re.IGNORECASE)), otherwise)


def _check_address(daemon: Daemon) -> None:
    """Raise EngineUnavailable for an address that leads to no engine that could see this machine's files."""
    given = daemon.address
    try:
        parts = urlsplit(given)
        is_usable = parts.scheme == "unix" or (parts.scheme in _SCHEMES and bool(parts.hostname and parts.port))
    except ValueError:
        is_usable = False
    if not is_usable:
        raise EngineUnavailable(
            f"{daemon.variable} is {given!r}, which is no engine's address that can be used here",
            hint=f"Unset {daemon.variable} for the engine of this machine ({daemon.usual_address}), or set it to"
            " unix://PATH or tcp://HOST:PORT; what is reached by ssh does not see this machine's files.",
        )


def _check_socket(daemon: Daemon) -> None:
    """Raise EngineUnavailable where the engine's address is a socket that nobody listens on."""
    scheme, _, path = daemon.address.partition("://")
    if scheme != "unix":
        return
    with socket.socket(socket.AF_UNIX) as tried:
        tried.settimeout(FIRST_ANSWER_SECONDS)
        try:
            tried.connect(path)
        except OSError as error:
            raise EngineUnavailable(
                f"No {daemon.title} engine answers at {daemon.address} ({error.strerror or error})",
                hint=_hint(daemon.how_to_start, daemon),
            ) from error


def _hint(advice: str, daemon: Daemon) -> str:
    """The advice, after where the address comes from where somebody set it."""
    if daemon.address == daemon.usual_address:
        return advice
    here = f"unset it if {daemon.usual_address}, of this machine, is meant"
    return f"{daemon.variable} is set to {daemon.address}: {here}. {advice}"
