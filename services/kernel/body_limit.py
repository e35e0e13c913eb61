"""The bound on a request's body, and the end of a connection whose client still sends when it has its answer."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medperf_contracts.bounds import BODY_BYTES_MOST

from .errors import BodyTooLarge

# Closed with bytes unread, a connection is reset, which can overtake the answer: some are taken and dropped.
DROPPED_BYTES_MOST = 2 * 1024 * 1024
DROPPING_SECONDS_MOST = 2.0


class BodyLimit:
    """Refuses a body over the bound before or while it is read, as a problem document like every other refusal.

    Whoever still sends more than the bound, or without saying how much, when the answer is there, gets it and is
    left: no body is read to its end for nothing.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(Headers(scope=scope), receive, send)
        await self._app(scope, body.receive, body.send)


class _Body:
    """One request's body on its way in, and the answer on its way out."""

    def __init__(self, headers: Headers, receive: Receive, send: Send) -> None:
        length = headers.get("content-length", "0")
        self._declared = int(length) if length.isdecimal() else 0
        self._may_be_long = self._declared > BODY_BYTES_MOST or "transfer-encoding" in headers
        self._receive = receive
        self._send = send
        self._taken = 0
        self._is_ended = False

    async def receive(self) -> Message:
        if self._declared > BODY_BYTES_MOST:
            raise self._refusal()
        message = await self._take()
        if self._taken > BODY_BYTES_MOST:
            raise self._refusal()
        return message

    async def send(self, message: Message) -> None:
        if self._is_ended or not self._may_be_long:
            await self._send(message)
            return
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
        is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if not is_last:
            await self._send(message)
            return
        await self._send({**message, "more_body": True})
        await self._drop_what_still_comes()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _take(self) -> Message:
        message = await self._receive()
        self._taken += len(message.get("body", b""))
        self._is_ended = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message

    async def _drop_what_still_comes(self) -> None:
        most = self._taken + DROPPED_BYTES_MOST
        try:
            async with asyncio.timeout(DROPPING_SECONDS_MOST):
                while not self._is_ended and self._taken < most:
                    await self._take()
        except TimeoutError:
            pass

    @staticmethod
    def _refusal() -> BodyTooLarge:
        return BodyTooLarge(f"The body is larger than {BODY_BYTES_MOST} bytes.")
