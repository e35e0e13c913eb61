"""A site's HTTP proxy: CONNECT and plain http, with a login if asked for; it keeps every byte that it was sent."""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import quote

_HEAD_BYTES_MOST = 64 * 1024


@dataclass
class Proxy:
    """Listens on loopback. `ways` are the host:port that it knows, each with the port on loopback behind it.

    `login` is NAME:PASSWORD; `answers` are statuses that it gives in place of a connection, one a request.
    """

    ways: Mapping[str, int]
    login: str = ""
    answers: list[int] = field(default_factory=list)
    # What arrived in the clear: heads of requests, and of plain http their bodies.
    heads: list[bytes] = field(default_factory=list)
    # What went through tunnels, from the client: TLS, if the client does as it should.
    tunnelled: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept)]
        self._open: list[socket.socket] = []

    def url(self, login: str | None = None) -> str:
        named = self.login if login is None else login
        written = f"{quote(named, safe=':')}@" if named else ""
        return f"http://{written}127.0.0.1:{self.port}"

    def lines(self) -> list[str]:
        """The first line of each request that it saw."""
        return [head.split(b"\r\n")[0].decode() for head in self.heads]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(client)
            self._threads.append(threading.Thread(target=self._serve, args=(client,)))
            self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            head = b""
            while b"\r\n\r\n" not in head and len(head) < _HEAD_BYTES_MOST:
                chunk = client.recv(4096)
                if not chunk:
                    return
                head += chunk
            self.heads.append(head)
            status = self._refusal(head)
            if status:
                client.sendall(
                    f"HTTP/1.1 {status} Said\x1b[31mred\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n"
                    "Connection: close\r\n\r\n".encode()
                )
                return
            method, target = head.split(b" ")[:2]
            named = target if method == b"CONNECT" else target.removeprefix(b"http://").split(b"/")[0]
            with socket.create_connection(("127.0.0.1", self.ways[named.decode()])) as server:
                self._open.append(server)
                if method == b"CONNECT":
                    client.sendall(b"HTTP/1.1 200 Go on\r\n\r\n")
                else:
                    server.sendall(_without_proxys_own(head))
                back = threading.Thread(target=_copy, args=(server, client))
                back.start()
                _copy(client, server, self.tunnelled)
                back.join()

    def _refusal(self, head: bytes) -> int:
        if self.answers:
            return self.answers.pop(0)
        given = base64.b64encode(self.login.encode())
        return 407 if self.login and b"Proxy-Authorization: Basic " + given not in head else 0


def _without_proxys_own(head: bytes) -> bytes:
    lines = head.split(b"\r\n")
    method, target, version = lines[0].split(b" ")
    path = b"/" + target.removeprefix(b"http://").partition(b"/")[2]
    kept = [line for line in lines[1:] if not line.lower().startswith(b"proxy-")]
    return b"\r\n".join([b" ".join([method, path, version]), *kept])


def _copy(source: socket.socket, target: socket.socket, seen: bytearray | None = None) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(65536):
            if seen is not None:
                seen += chunk
            target.sendall(chunk)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
