"""What an orchestrator and an operator may ask a process, on a port of its own that no proxy routes to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

# None where all is well, else what is missing, in a sentence.
Check = Callable[[], Awaitable[str | None]]
Refresh = Callable[[], Awaitable[None]]


def monitor_app(*, live: Mapping[str, Check], ready: Mapping[str, Check], refresh: Refresh) -> Starlette:
    """`/live`: whether the process works (else end it), `/ready`: whether to send it requests, `/metrics`.

    `refresh` is waited for before each scrape, so it has a bound of its own.
    """

    async def view_live(_: Request) -> Response:
        return await _answer(live)

    async def view_ready(_: Request) -> Response:
        return await _answer(ready)

    async def view_metrics(_: Request) -> Response:
        await refresh()
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[Route("/live", view_live), Route("/ready", view_ready), Route("/metrics", view_metrics)]
    )


async def _answer(checks: Mapping[str, Check]) -> Response:
    found = {name: await check() for name, check in checks.items()}
    missing = {name: problem for name, problem in found.items() if problem is not None}
    return JSONResponse(
        {"checks": {name: problem or "ok" for name, problem in found.items()}}, status_code=503 if missing else 200
    )
