"""The gateway of the embedded server: one ASGI application over the services' own."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from services.kernel.body_limit import BodyLimit
from services.kernel.errors import AppError, MethodNotAllowed, NoSuchAddress
from services.kernel.problems import problem_response

from .admission import refusal_of
from .routes import ASSET_MEDIA_TYPE, ASSETS, service_of


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
        service = None if refusal_of(scope) else service_of(scope["path"])
        if service is not None:
            await self._apps[service](scope, receive, send)
        else:
            await self._others(scope, receive, send)

    async def _serve_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        refusal = refusal_of(scope)
        if refusal is not None:
            response = _problem(refusal)
        elif not path.startswith(f"{ASSETS}/"):
            response = _problem(_no_such_address(path))
        elif scope["method"] not in ("GET", "HEAD"):
            response = _problem(MethodNotAllowed("A file can only be fetched."))
            response.headers["Allow"] = "GET, HEAD"
        else:
            response = await self._asset(path, scope)
        await response(scope, receive, send)

    async def _asset(self, path: str, scope: Scope) -> Response:
        if self._assets is None or "/." in path:  # a copy that is being made
            return _problem(_no_such_address(path))
        try:
            response = await self._assets.get_response(path.removeprefix(f"{ASSETS}/"), scope)
        except HTTPException:
            return _problem(_no_such_address(path))
        response.headers["Content-Type"] = ASSET_MEDIA_TYPE
        return response

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


def _no_such_address(path: str) -> NoSuchAddress:
    return NoSuchAddress(f"There is nothing at {path[:200]}.")


def _problem(refusal: AppError) -> Response:
    return problem_response(status=refusal.status, code=refusal.code, detail=refusal.detail, hint=refusal.hint)
