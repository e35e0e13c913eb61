"""A real TCP proxy between client and server that breaks exchanges, each in a way that a network has."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_RESET = struct.pack("ii", 1, 0)
_SERVER_SECONDS = 30
_EXPIRED = {
    "title": "Expired",
    "status": 401,
    "code": "token_expired",
    "detail": "It expired.",
    "hint": "Renew it.",
}


class Break(StrEnum):
    """What becomes of an exchange. `after`: the server did what was asked."""

    RESET_BEFORE = "the connection is reset before the server gets the request"
    ERROR_BEFORE = "500 instead of passing the request on"
    BUSY_BEFORE = "503 instead of passing the request on"
    ERROR_AFTER = "500 instead of the server's answer"
    BUSY_AFTER = "503 instead of the server's answer"
    CUT_AFTER = "the server's answer ends in the middle"
    CLOSED_AFTER = "the server's answer is dropped"


@dataclass(frozen=True)
class Exchange:
    """A request as it came, and how its exchange was broken."""

    method: str
    path: str
    key: str | None
    broken: Break | None


# Says how the exchange of a request is broken, given those before it.
Plan = Callable[[str, str, list[Exchange]], Break | None]


def none(_method: str, _path: str, _before: list[Exchange]) -> None:
    """Break nothing."""


def each_once(how: Break) -> Plan:
    """Break each request the first time that it comes."""

    def plan(method: str, path: str, before: list[Exchange]) -> Break | None:
        last = before[-1] if before else None
        is_again = last is not None and last.broken is not None and (last.method, last.path) == (method, path)
        return None if is_again else how

    return plan


def always_from(number: int, how: Break) -> Plan:
    """Break every exchange from one on, counted from 0."""
    return lambda _method, _path, before: how if len(before) >= number else None


@dataclass
class BreakingProxy:
    """Listens on loopback and passes requests on to `server`, as `plan` lets it."""

    server: str
    plan: Plan = none
    exchanges: list[Exchange] = field(default_factory=list)
    # Access tokens that are answered as expired.
    expired: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                broken = proxy.plan(self.command, self.path, proxy.exchanges)
                key = self.headers.get("Idempotency-Key")
                proxy.exchanges.append(Exchange(self.command, self.path, key, broken))
                if self.headers.get("Authorization", "").removeprefix("Bearer ") in proxy.expired:
                    self._fail(401, _EXPIRED)
                elif broken is Break.RESET_BEFORE:
                    self._reset()
                elif broken in (Break.ERROR_BEFORE, Break.BUSY_BEFORE):
                    self._fail(500 if broken is Break.ERROR_BEFORE else 503)
                else:
                    self._pass_on(body, broken)

            do_POST = do_PATCH = do_GET  # noqa: N815 - the names that http.server calls

            def _pass_on(self, body: bytes, broken: Break | None) -> None:
                headers = {**dict(self.headers.items()), "Connection": "close"}
                link = http.client.HTTPConnection(urlsplit(proxy.server).netloc, timeout=_SERVER_SECONDS)
                link.request(self.command, self.path, body, headers)
                answer = link.getresponse()
                content = answer.read()
                link.close()
                if broken in (Break.ERROR_AFTER, Break.BUSY_AFTER):
                    self._fail(500 if broken is Break.ERROR_AFTER else 503)
                elif broken is Break.CLOSED_AFTER:
                    self._reset()
                else:
                    self._answer(answer, content, None if broken is None else len(content) // 2)

            def _answer(self, answer: http.client.HTTPResponse, content: bytes, cut: int | None) -> None:
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[:cut])

            def _fail(self, status: int, said: object = "an intermediary's own words") -> None:
                content = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def _reset(self) -> None:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                self.wfile.close()
                self.connection.close()

            def log_message(self, *args: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: object) -> None:
                """A connection that the handler itself reset."""

            def shutdown_request(self, request: object) -> None:
                with suppress(OSError):
                    super().shutdown_request(request)  # type: ignore[arg-type]

        self._listener = Quiet(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._listener.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._listener.server_address[1]}"

    def breaking(self, plan: Plan) -> list[Exchange]:
        """Follow another plan from now on; the list of exchanges that it begins."""
        self.plan, self.exchanges = plan, []
        return self.exchanges

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join()
