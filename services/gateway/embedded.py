"""The gateway of the embedded server: one ASGI application over the services' own."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from pathlib import Path

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from services.kernel.body_limit import BodyLimit
from services.kernel.errors import NoSuchAddress
from services.kernel.problems import problem_response

from .routes import ASSETS, service_of


class EmbeddedGateway:
    """Every service behind one address, and the files that registered URLs such as `/assets/…` name.

    `working` is entered once every service is ready, and left before any of them ends.
    """

    def __init__(
        self, apps: Mapping[str, FastAPI], *, assets: Path | None, working: AbstractAsyncContextManager[None]
    ) -> None:
        self._apps = apps
        self._assets = None if assets is None else StaticFiles(directory=assets, follow_symlink=False)
        self._working = working
        self._others = BodyLimit(self._serve_other)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        path: str = scope["path"]
        service = service_of(path)
        if service is not None:
            await self._apps[service](scope, receive, send)
        else:
            await self._others(scope, receive, send)

    async def _serve_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if path.startswith(f"{ASSETS}/"):
            await self._serve_asset(scope, receive, send)
        else:
            await _no_such_address(path)(scope, receive, send)

    async def _serve_asset(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = scope["path"].removeprefix(ASSETS)
        response = _no_such_address(scope["path"])
        if self._assets is not None:
            with suppress(HTTPException):
                response = await self._assets.get_response(name.lstrip("/"), scope)
        await response(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        """The server's life: a mounted application's lifespan is not run by itself, so each is entered here."""
        await receive()
        try:
            async with AsyncExitStack() as stack:
                for app in self._apps.values():
                    await stack.enter_async_context(app.router.lifespan_context(app))
                await stack.enter_async_context(self._working)
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": repr(error)})
            raise
        await send({"type": "lifespan.shutdown.complete"})


def _no_such_address(path: str) -> Response:
    return problem_response(
        status=NoSuchAddress.status,
        code=NoSuchAddress.code,
        detail=f"There is nothing at {path[:200]}.",
        hint=NoSuchAddress.hint,
    )
