"""The way of a request: admitted, held back until its news is here, one transaction, one log line.

A command's transaction is committed before its answer leaves, together with its idempotency key; so an answer of
success means that the change is there, and a failed commit is answered as a failure.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Set
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Header, Request, Security
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from opentelemetry.trace import Span, SpanKind
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import ClientDisconnect

from medperf_contracts.bounds import BODY_DEPTH_MOST
from medperf_contracts.problems import Problem
from medperf_contracts.values import ThingView
from medperf_contracts.versions import IDEMPOTENCY_HEADER, SEEN_HEADER, VERSION_HEADER, ThingVersion

from . import idempotency, metrics, openapi, tracing
from .auth import Caller
from .body_limit import BodyLimit
from .errors import AppError, InvalidDocument, VersionRequired
from .handshake import ClientTooOld, Handshake
from .log import logger
from .problems import install_handlers, told_as
from .service import Service

# Login and refresh answer secrets, which are not to be kept, and run short transactions of their own.
OWN_TRANSACTIONS = frozenset({"POST /api/v1/auth/login", "POST /api/v1/auth/refresh"})
# The process ended, or the request was cut off, before there was an answer.
CANCELLED = (499, "cancelled")
# A parameter's name is echoed, as far as a person reads it.
_NAME_SHOWN = 64

# What is remembered of these bodies must not be a quicker way to guess a password than the password's own hash.
PASSWORD_BODIES = frozenset(
    {
        "POST /api/v1/users",
        "POST /api/v1/users/me/password",
        "POST /api/v1/users/{user_id}/set-password",
    }
)

Handle = Callable[[Request], Coroutine[Any, Any, Response]]
ThingViewT = TypeVar("ThingViewT", bound=ThingView)


class ServiceRoute(APIRoute):
    """A route whose endpoint finds its caller and its session ready."""

    def get_route_handler(self) -> Handle:
        inner = super().get_route_handler()
        (method,) = self.methods or {"GET"}
        endpoint = f"{method} {self.path_format}"
        parameters = frozenset(_parameters_of(self.dependant))

        async def handle(request: Request) -> Response:
            service: Service = request.app.state.service
            caller = service.gate.admit(
                endpoint,
                authorization=request.headers.get("authorization"),
                peer=request.client.host if request.client else None,
                own_address=(request.scope.get("server") or (None,))[0],
            )
            request.state.caller = caller
            check_parameters(request, parameters)
            await service.seen.wait(request.headers.get(SEEN_HEADER))
            if method == "GET":
                async with service.database.read() as session:
                    request.state.session = session
                    return await inner(request)
            return await _command(request, service, caller, endpoint, inner)

        async def observed(request: Request) -> Response:
            attributes = {"http.request.method": method, "http.route": self.path_format}
            with tracing.entered(
                endpoint, SpanKind.SERVER, parent=request.headers.get("traceparent"), attributes=attributes
            ) as span:
                began = time.monotonic()
                status, code = CANCELLED
                try:
                    response = await handle(request)
                    status, code = response.status_code, ""
                except Exception as error:
                    status, code = told_as(request, error)
                    raise
                finally:
                    _observe(request, span, endpoint, status, code, seconds=time.monotonic() - began)
            return response

        return observed


def _observe(request: Request, span: Span, endpoint: str, status: int, code: str, *, seconds: float) -> None:
    """Tell the log, the metrics and the trace how a request ended."""
    service: Service = request.app.state.service
    caller: Caller | None = getattr(request.state, "caller", None)
    logger.info(
        "request",
        endpoint=endpoint,
        path=request.url.path,
        user_id=caller.user_id if caller else None,
        outcome=code or str(status),
        millis=round(seconds * 1000, 1),
        trace_id=tracing.current_trace_id(),
    )
    metrics.REQUESTS.labels(service.definition.name, endpoint, str(status), code).inc()
    metrics.REQUEST_SECONDS.labels(service.definition.name, endpoint).observe(seconds)
    span.set_attribute("http.response.status_code", status)
    span.set_attribute("medperf.outcome", code or str(status))
    if status >= 500:
        tracing.fail(span, code)


async def _command(request: Request, service: Service, caller: Caller, endpoint: str, inner: Handle) -> Response:
    try:
        document = check_document(await request.body())
    except ClientDisconnect:
        raise InvalidDocument("The body was cut off.") from None
    if endpoint in OWN_TRANSACTIONS:
        return await inner(request)
    if not endpoint.startswith("POST "):
        async with service.database.write() as session:
            request.state.session = session
            return await inner(request)
    key = idempotency.key_of(request.headers.get(IDEMPOTENCY_HEADER))
    claim = idempotency.Claim(
        user_id=caller.user_id,
        route=f"POST {request.url.path}"[:255],
        key=key,
        body_hash=await idempotency.hash_body(document, key=key, has_password=endpoint in PASSWORD_BODIES),
    )
    prepare = service.definition.preparations.get(endpoint)
    request.state.prepared = await prepare(document) if prepare else None
    async with service.keys_at_work.hold(claim), service.database.write() as session:
        answered = await idempotency.take(session, claim)
        if answered is not None:
            return answered
        request.state.session = session
        response = await inner(request)
        await idempotency.keep(session, claim, response)
    return response


def _parameters_of(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.query_params)
    for dependency in dependant.dependencies:
        yield from _parameters_of(dependency)


def check_parameters(request: Request, known: Set[str]) -> None:
    """Refuse a query with a parameter that the endpoint does not have: a mistyped filter would filter nothing."""
    unknown = sorted(set(request.query_params) - known)
    if unknown:
        problem = {"type": "extra_forbidden", "msg": "there is no such parameter"}
        raise RequestValidationError([{**problem, "loc": ("query", name[:_NAME_SHOWN])} for name in unknown])


def check_document(body: bytes) -> Any:
    """The JSON document of a body, refused where some database or reader could not keep it as it is."""
    if not body:
        return None
    try:
        document = json.loads(body, parse_constant=_no_constant)
        json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise InvalidDocument(f"The body is not valid JSON: {str(error)[:200]}.") from None
    level, depth = [document], 0
    while level:
        depth += 1
        if depth > BODY_DEPTH_MOST:
            raise InvalidDocument(f"The body is nested more than {BODY_DEPTH_MOST} levels deep.")
        if any(isinstance(value, str) and "\0" in value for value in level):
            raise InvalidDocument("The body holds a NUL character.")
        level = [child for value in level for child in _children(value)]
    return document


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return value if isinstance(value, list) else []


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def new_router() -> APIRouter:
    """A router for one noun; its endpoints name their whole path."""
    return APIRouter(route_class=ServiceRoute)


def refusals(*errors: type[AppError]) -> dict[int | str, dict[str, Any]]:
    """For an endpoint's `responses`: what it can answer beside success."""
    by_status: dict[int, list[str]] = {}
    for error in errors:
        by_status.setdefault(error.status, []).append(error.code)
    return {
        status: {"model": Problem, "description": ", ".join(codes)} for status, codes in sorted(by_status.items())
    }


def shown(response: Response, view: ThingViewT, kind: str) -> ThingViewT:
    """Say in the answer's header which version of the thing it shows."""
    response.headers[VERSION_HEADER] = str(ThingVersion(kind, view.id, view.version))
    response.headers["ETag"] = f'"{view.version}"'
    return view


def _session(request: Request) -> AsyncSession:
    session: AsyncSession = request.state.session
    return session


def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


def _prepared(request: Request) -> Any:
    return request.state.prepared


def _expected_version(
    if_match: Annotated[str | None, Header(description='The version that is changed, such as "3"')] = None,
) -> int:
    if if_match is None or not (text := if_match.strip().strip('"')).isdecimal() or len(text) > 18:
        raise VersionRequired("The If-Match header must name the version that is to be changed.")
    return int(text)


SessionParam = Annotated[AsyncSession, Depends(_session)]
CallerParam = Annotated[Caller, Depends(_caller)]
PreparedParam = Annotated[Any, Depends(_prepared)]
ExpectedVersionParam = Annotated[int, Depends(_expected_version)]


def build_app(service: Service) -> FastAPI:
    """A service's web application. Its database is closed when it ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await service.database.close()

    app = FastAPI(
        title=service.definition.title,
        lifespan=lifespan,
        version="v1",
        docs_url=None,
        redoc_url=None,
        # Its answer would name an address made of the Host header, with http:// behind a proxy that speaks TLS.
        redirect_slashes=False,
        openapi_url=f"/api/v1/openapi/{service.database.service}.json",
        dependencies=[Security(HTTPBearer(auto_error=False, description="An access token from login"))],
        responses={
            400: {"model": Problem, "description": "Malformed: no JSON, a missing or malformed header"},
            401: {"model": Problem, "description": "No login, or one that is expired or foreign"},
            422: {"model": Problem, "description": "Invalid input"},
            ClientTooOld.status: {"model": Problem, "description": ClientTooOld.code},
            503: {"model": Problem, "description": "Not known yet, or busy: try again"},
        },
    )
    app.state.service = service
    app.add_middleware(Handshake)
    app.add_middleware(BodyLimit)
    install_handlers(app)
    for router in service.definition.routers:
        app.include_router(router)
    openapi.describe(app, own_transactions=OWN_TRANSACTIONS)
    return app
