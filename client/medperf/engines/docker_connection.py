"""The way to Docker: asked once and with a bound whether it answers; what is said where it does not."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
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
_START = "Start it (Debian, Ubuntu: `sudo systemctl start docker`), or ask to be let in (the group `docker`)."
_DEFAULT = "unix:///var/run/docker.sock"
_LOCAL_FILES = (
    "Is the engine on another machine, in a virtual one, or kept from this one's files? It must see the local"
    " folder (MEDPERF_HOME) and the data; else use `--platform sandbox`."
)
# What a daemon that works says of what it was asked for -> what to do.
_ADVICE = (
    (r"range of cpus|cpu", "Ask for no more processors with --cpus than this machine has."),
    (r"memory", "Give another --memory_limit: no less than a few MB, and no more than this machine has."),
    (r"bind source path|bind mount|not shared", _LOCAL_FILES),
    (r"no such container", "Somebody removed it while it ran. Run the same command again."),
    (r"mount|volume|tmpfs", "It is how the image is made: tell its owner, or use `--platform sandbox`."),
)
_OTHERWISE = (
    "Docker itself answers. Mend what it names, or use `--platform sandbox`; if it is the image, tell its owner."
)
_ITS_LOG = "It is a fault of the engine's: look at its log (`journalctl -u docker`) and its disk, and restart it."


def connect() -> DockerClient:
    """A client of the engine, which has answered.

    EngineUnavailable where none does, EngineSilent where one takes a connection and says nothing.
    """
    _check_address()
    _check_socket()
    with answering():
        import docker  # as long as a small command takes, and of use only where something listens

        with closing(docker.from_env(timeout=FIRST_ANSWER_SECONDS)) as asked:
            version = asked.api.api_version
        return docker.from_env(version=version, timeout=_ANSWER_SECONDS)


@contextmanager
def answering() -> Iterator[None]:
    """Turn the SDK's ways to fail into one that a person can act on."""
    try:
        yield
    except ClientError:
        raise
    except Exception as error:
        said = _in_words(error)
        if said is None:
            raise
        raise said from error


def _in_words(error: Exception) -> EngineUnavailable | None:
    """What an error of the SDK's means; None for one that is another's."""
    import requests
    from docker.errors import APIError, DockerException
    from urllib3.exceptions import HTTPError

    if isinstance(error, APIError) and error.status_code is not None:
        said = str(error.explanation or error).strip().splitlines()[0]
        return EngineUnavailable(f"Docker refuses at {address()}: {said}", hint=_advice(error.status_code, said))
    if not isinstance(error, DockerException | requests.RequestException | HTTPError):
        return None
    whys = list(_causes(error))
    if any(isinstance(why, TimeoutError | requests.Timeout) or "timed out" in str(why) for why in whys):
        return EngineSilent(
            f"Docker takes connections at {address()}, but does not answer", hint=_hint(f"Restart it. {_ITS_LOG}")
        )
    why = next((one.strerror for one in whys if isinstance(one, OSError) and one.strerror), None)
    return EngineUnavailable(
        f"No Docker engine answers at {address()} ({why or 'the connection was lost'})", hint=_hint(_START)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _advice(status: int, said: str) -> str:
    if status >= 500 and not re.search("bind source|no such container|mount", said, re.IGNORECASE):
        return _ITS_LOG
    return next((advice for what, advice in _ADVICE if re.search(what, said, re.IGNORECASE)), _OTHERWISE)


def _check_address() -> None:
    """Raise EngineUnavailable for a DOCKER_HOST that leads to no engine that could see this machine's files."""
    given = address()
    try:
        parts = urlsplit(given)
        is_usable = parts.scheme == "unix" or (parts.scheme in _SCHEMES and bool(parts.hostname and parts.port))
    except ValueError:
        is_usable = False
    if not is_usable:
        raise EngineUnavailable(
            f"DOCKER_HOST is {given!r}, which is no engine's address that can be used here",
            hint=f"Unset DOCKER_HOST for the engine of this machine ({_DEFAULT}), or set it to unix://PATH or"
            " tcp://HOST:PORT; what is reached by ssh does not see this machine's files.",
        )


def _check_socket() -> None:
    """Raise EngineUnavailable where the engine's address is a socket that nobody listens on."""
    scheme, _, path = address().partition("://")
    if scheme != "unix":
        return
    with socket.socket(socket.AF_UNIX) as tried:
        tried.settimeout(FIRST_ANSWER_SECONDS)
        try:
            tried.connect(path)
        except OSError as error:
            raise EngineUnavailable(
                f"No Docker engine answers at {address()} ({error.strerror or error})", hint=_hint(_START)
            ) from error


def _hint(advice: str) -> str:
    """The advice, after where the address comes from where somebody set it."""
    if address() == _DEFAULT:
        return advice
    return f"DOCKER_HOST is set to {address()}: unset it if {_DEFAULT}, of this machine, is meant. {advice}"


def address() -> str:
    return os.environ.get("DOCKER_HOST") or _DEFAULT
