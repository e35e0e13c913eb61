"""A server in a container: by testcontainers, where a Docker engine answers and has, or can pull, the image."""

from __future__ import annotations

import os
import socket
import time
from contextlib import closing
from typing import Any

import docker
import pytest
from docker.errors import APIError, DockerException, ImageNotFound
from requests.exceptions import RequestException
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from .found import NotHere
from .life import free_port

PULL_SECONDS = 120.0
ENGINE_SECONDS = 15
_NO_RYUK = "TESTCONTAINERS_RYUK_DISABLED"


class Container:
    """A server's container, on a port of the loopback that it keeps over a restart."""

    def __init__(self, image: str, *, port: int, environment: dict[str, str], command: str | None = None) -> None:
        with closing(_engine()) as engine:
            _have(engine, image)
            if _NO_RYUK not in os.environ:
                testcontainers_config.ryuk_disabled = not _has_ryuk(engine)
        self.port = free_port()
        self._container = DockerContainer(image).with_bind_ports(f"{port}/tcp", self.port)
        for name, value in environment.items():
            self._container.with_env(name, value)
        if command:
            self._container.with_command(command)
        self._is_started = False

    def start(self) -> None:
        if self._is_started:
            self._wrapped.start()
            return
        try:
            self._container.start()
        except (APIError, RequestException) as error:
            self._container.stop()
            raise NotHere(f"the Docker engine started no container: {str(error)[:300]}") from None
        self._is_started = True
        self._wrapped.reload()
        if not self._wrapped.attrs["NetworkSettings"]["Ports"]:
            self.remove()
            raise NotHere("the Docker engine gives containers no network that the tests can reach")

    @property
    def _wrapped(self) -> Any:
        return self._container.get_wrapped_container()

    @property
    def pid(self) -> int:
        self._wrapped.reload()
        if not (pid := int(self._wrapped.attrs["State"]["Pid"])):
            pytest.fail(f"the container does not run:\n{self.tail()}")
        return pid

    @property
    def pids(self) -> list[int]:
        return [int(row[1]) for row in self._wrapped.top()["Processes"]]

    def stop(self) -> None:
        self._wrapped.stop()

    def kill(self) -> None:
        self._wrapped.kill()

    def freeze(self) -> None:
        self._wrapped.pause()

    def thaw(self) -> None:
        self._wrapped.unpause()

    def tail(self) -> str:
        return str(self._wrapped.logs(tail=40).decode(errors="replace"))

    def run(self, *argv: str) -> str:
        """A command in the container; fails where it does."""
        code, output = self._wrapped.exec_run(list(argv))
        if code:
            pytest.fail(f"{argv} failed: {output.decode(errors='replace')}")
        return str(output.decode())

    def remove(self) -> None:
        self._container.stop()


def _engine() -> docker.DockerClient:
    where = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if where.startswith("unix://"):
        try:  # docker's library leaves the socket open where nobody answers
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(where.removeprefix("unix://"))
        except OSError as error:
            raise NotHere(f"no Docker engine answers at {where}: {error.strerror}") from None
    try:
        return docker.DockerClient.from_env(timeout=ENGINE_SECONDS)  # it asks the engine for its version
    except (DockerException, RequestException) as error:
        raise NotHere(f"no Docker engine answers at {where}: {str(error)[:300]}") from None


def _have(engine: docker.DockerClient, image: str) -> None:
    """Pull the image where it is not there; bounded, as a registry may never answer."""
    try:
        engine.images.get(image)
        return
    except ImageNotFound:
        pass
    deadline = time.monotonic() + PULL_SECONDS
    try:
        for step in engine.api.pull(image, stream=True, decode=True):
            if "error" in step:
                raise NotHere(f"the Docker engine has no {image} and cannot pull it: {step['error'][:300]}")
            if time.monotonic() > deadline:
                raise NotHere(f"the Docker engine could not pull {image} within {PULL_SECONDS:g} s")
    except (APIError, RequestException) as error:
        raise NotHere(f"the Docker engine has no {image} and cannot pull it: {str(error)[:300]}") from None


def _has_ryuk(engine: docker.DockerClient) -> bool:
    """Whether testcontainers' own helper, which removes what a killed test leaves, can be had."""
    try:
        _have(engine, testcontainers_config.ryuk_image)
    except NotHere:
        return False
    return True
