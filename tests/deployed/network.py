"""A network between processes that can be cut: a namespace for some, and a cable that can be pulled."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from servers.found import LOOPBACK

CHUNK_BYTES = 65_536


class Cable:
    """A namespace, and the pair of interfaces between it and this machine."""

    def __init__(self, name: str, number: int) -> None:
        self.namespace = name
        self._here, self._there = f"{name}h", f"{name}t"
        self.here, self.there = f"10.213.{number}.1", f"10.213.{number}.2"

    @property
    def inside(self) -> list[str]:
        """The command by which a program runs at the other end."""
        return ["ip", "netns", "exec", self.namespace]

    def lay(self) -> None:
        _ip("netns", "add", self.namespace)
        _ip("link", "add", self._here, "type", "veth", "peer", "name", self._there, "netns", self.namespace)
        _ip("address", "add", f"{self.here}/30", "dev", self._here)
        _ip("link", "set", self._here, "up")
        for command in (
            ("address", "add", f"{self.there}/30", "dev", self._there),
            ("link", "set", self._there, "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-netns", self.namespace, *command)

    def cut(self) -> None:
        """Packets are lost from now on, and nobody is told."""
        _ip("link", "set", self._here, "down")

    def mend(self) -> None:
        _ip("link", "set", self._here, "up")

    def remove(self) -> None:
        with suppress(subprocess.CalledProcessError):
            _ip("netns", "delete", self.namespace)


class Forwarder:
    """What connects here is connected to the first of the targets, on this machine, that takes it."""

    def __init__(self, host: str, targets: Sequence[int]) -> None:
        self._host, self._targets = host, targets
        self._turn = itertools.count()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        serving = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._connected, host, 0), self._loop)
        self.port: int = serving.result(10).sockets[0].getsockname()[1]

    @property
    def address(self) -> str:
        return f"{self._host}:{self.port}"

    def close(self) -> None:
        async def end() -> None:
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = next(self._turn)
        for number in range(len(self._targets)):
            target = self._targets[(first + number) % len(self._targets)]
            with suppress(OSError):
                there = await asyncio.open_connection(LOOPBACK, target)
                break
        else:
            writer.close()
            return
        ways = (asyncio.create_task(_carry(reader, there[1])), asyncio.create_task(_carry(there[0], writer)))
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            writer.close()
            there[1].close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()


@contextmanager
def cable() -> Iterator[Cable]:
    """Laid, and removed at the end. It needs root, as servers of Debian's packages do."""
    # Tests of two processes have cables at the same time; a name of an interface has at most 15 characters.
    laid = Cable(f"mp{os.getpid()}", os.getpid() % 250)
    laid.remove()
    laid.lay()
    try:
        yield laid
    finally:
        laid.remove()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)
