"""The way to Docker, and what is said where it does not answer."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from medperf.errors import EngineUnavailable

# An engine that takes no connection within this time answers nobody.
_SOCKET_SECONDS = 10.0
_START = "Start it (Debian, Ubuntu: `sudo systemctl start docker`), or ask to be let in (the group `docker`)."


@contextmanager
def answering() -> Iterator[None]:
    """Turn the SDK's ways to fail into one that a person can act on."""
    _check_socket()
    import requests
    from docker.errors import DockerException

    try:
        yield
    except (DockerException, requests.RequestException) as error:
        # Of an API's error its own explanation; a lost connection has only words of Python's.
        said = getattr(error, "explanation", None) or "it does not answer any more"
        raise EngineUnavailable(
            f"Docker does not do its work at {address()}: {str(said).splitlines()[0]}", hint=_START
        ) from error


def _check_socket() -> None:
    """Raise EngineUnavailable where the engine's address is a socket that nobody listens on."""
    scheme, _, path = address().partition("://")
    if scheme != "unix":
        return
    with socket.socket(socket.AF_UNIX) as tried:
        tried.settimeout(_SOCKET_SECONDS)
        try:
            tried.connect(path)
        except OSError as error:
            raise EngineUnavailable(
                f"No Docker engine answers at {address()} ({error.strerror or error})", hint=_START
            ) from error


def address() -> str:
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
