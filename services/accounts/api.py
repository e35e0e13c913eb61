"""The endpoints of accounts: the server itself, logins, users."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request, Response

from medperf_contracts.accounts import Login, NewUser, Refresh, Seeding, ServerView, Tokens, UserView
from medperf_contracts.paging import Page
from services.kernel.errors import NotAllowed
from services.kernel.http import CallerParam, SessionParam, new_router, refusals, shown
from services.kernel.idempotency import IdempotencyKeyReused, InProgress
from services.kernel.paging import PageParam
from services.kernel.service import Service

from . import commands, queries, tokens
from .errors import LoginEnded, StoreNotEmpty, StoreNotForDemo, UserExists, WrongCredentials

router = new_router()


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceParam = Annotated[Service, Depends(_service)]


@router.get("/api/v1/server")
async def view_server(session: SessionParam, service: ServiceParam) -> ServerView:
    """Which store this is, and its clock."""
    return await queries.server(session, is_embedded=service.settings.is_embedded)


@router.post(
    "/api/v1/server/seeding",
    status_code=201,
    responses=refusals(NotAllowed, StoreNotEmpty, StoreNotForDemo, IdempotencyKeyReused, InProgress),
)
async def mark_seeded(body: Seeding, session: SessionParam, service: ServiceParam) -> ServerView:
    """Mark an empty embedded store as filled by a demo, before its first account is made."""
    await commands.mark_seeded(
        session,
        body,
        is_embedded=service.settings.is_embedded,
        is_on_loopback=service.settings.is_on_loopback,
    )
    await session.flush()
    return await queries.server(session, is_embedded=service.settings.is_embedded)


@router.get("/api/v1/auth/jwks")
async def view_public_keys(service: ServiceParam) -> dict[str, Any]:
    """The public keys of the access tokens (RFC 7517)."""
    return dict(tokens.public_keys(service.settings.signing_key_file).as_dict(private=False))


@router.post("/api/v1/auth/login", responses=refusals(WrongCredentials))
async def log_in(body: Login, service: ServiceParam) -> Tokens:
    """Begin a login with a name and a password."""
    return await commands.log_in(
        service.database, body.username, body.password, signing_key_file=service.settings.signing_key_file
    )


@router.post("/api/v1/auth/refresh", responses=refusals(LoginEnded))
async def refresh(body: Refresh, service: ServiceParam) -> Tokens:
    """Replace a refresh token by its successor, with a new access token."""
    return await commands.refresh(
        service.database, body.refresh_token, signing_key_file=service.settings.signing_key_file
    )


@router.post("/api/v1/auth/logout", status_code=204, responses=refusals(IdempotencyKeyReused, InProgress))
async def log_out(body: Refresh, caller: CallerParam, session: SessionParam) -> None:
    """End the caller's login that this refresh token belongs to; their other logins go on."""
    await commands.log_out(session, caller, body.refresh_token)


@router.post(
    "/api/v1/users",
    status_code=201,
    responses=refusals(NotAllowed, UserExists, IdempotencyKeyReused, InProgress),
)
async def create_user(body: NewUser, session: SessionParam, response: Response) -> UserView:
    """Make an account; only the operator can."""
    user = await commands.create_user(session, body)
    return shown(response, await queries.view_of(user), "user")


@router.get("/api/v1/users", responses=refusals(NotAllowed))
async def browse_users(session: SessionParam, asked: PageParam) -> Page[UserView]:
    """All accounts."""
    return await queries.browse(session, asked)


@router.get("/api/v1/users/me")
async def view_me(caller: CallerParam, session: SessionParam, response: Response) -> UserView:
    """The caller's own account."""
    return shown(response, await queries.user(session, caller.user_id), "user")
