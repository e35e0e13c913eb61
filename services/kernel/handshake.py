"""Which release a server is of, said in each answer; a client that it no longer understands is told what to do."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medperf_contracts.releases import CLIENT_HEADER, OLDEST_CLIENT, SERVER, SERVER_HEADER, is_older, release_in

from .errors import AppError
from .problems import problem_response


class ClientTooOld(AppError):
    status = 426
    code = "client_too_old"
    hint = (
        f"Nothing was done. Install medperf {OLDEST_CLIENT} or later, then run the same command again; "
        "what is on your machine stays."
    )


class Handshake:
    """Refuses too old a `medperf` before anything else is looked at; other programs say no release of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def say(message: Message) -> None:
            if message["type"] == "http.response.start":
                said = (SERVER_HEADER.lower().encode(), SERVER.encode())
                message["headers"] = [*message.get("headers", []), said]
            await send(message)

        client = release_in(Headers(scope=scope).get(CLIENT_HEADER), "medperf")
        if client is None or not is_older(client, OLDEST_CLIENT):
            await self._app(scope, receive, say)
            return
        refusal = ClientTooOld(f"This server no longer understands medperf {client}.")
        response = problem_response(
            status=refusal.status, code=refusal.code, detail=refusal.detail, hint=refusal.hint
        )
        # RFC 9110, 15.5.22: what to change to.
        response.headers["Upgrade"] = f"medperf/{OLDEST_CLIENT}"
        await response(scope, receive, say)
