"""The endpoints of accounts: the server itself, logins, users."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from medperf_contracts.accounts import (
    Login,
    NewPassword,
    NewUser,
    PasswordChange,
    Refresh,
    Seeding,
    ServerView,
    Tokens,
    UserView,
)
from medperf_contracts.paging import Page
from medperf_contracts.values import Id, Username
from services.kernel.errors import ChangedMeanwhile, NoSuchThing, NotAllowed
from services.kernel.http import CallerParam, PreparedParam, SessionParam, new_router, refusals, shown
from services.kernel.idempotency import IdempotencyKeyReused, InProgress
from services.kernel.paging import PageParam
from services.kernel.service import Service

from . import commands, queries, signing_keys
from .domain import User
from .errors import (
    AccountDisabled,
    LastAdministrator,
    LoginEnded,
    PasswordTooShort,
    PasswordUnchanged,
    StoreNotEmpty,
    StoreNotForDemo,
    UserExists,
    WrongCredentials,
)

router = new_router()


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceParam = Annotated[Service, Depends(_service)]
UserIdParam = Annotated[Id, Path()]


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
    return dict(signing_keys.public_keys(service.settings.public_keys_file).as_dict(private=False))


@router.post("/api/v1/auth/login", responses=refusals(WrongCredentials, AccountDisabled))
async def log_in(body: Login, service: ServiceParam) -> Tokens:
    """Begin a login with a name and a password."""
    return await commands.log_in(
        service.database, body.username, body.password, signing_keys_file=service.settings.signing_keys_file
    )


@router.post("/api/v1/auth/refresh", responses=refusals(LoginEnded))
async def refresh(body: Refresh, service: ServiceParam) -> Tokens:
    """Replace a refresh token by its successor, with a new access token."""
    return await commands.refresh(
        service.database, body.refresh_token, signing_keys_file=service.settings.signing_keys_file
    )


@router.post("/api/v1/auth/logout", status_code=204, responses=refusals(IdempotencyKeyReused, InProgress))
async def log_out(body: Refresh, caller: CallerParam, session: SessionParam) -> None:
    """End the caller's login that this refresh token belongs to; their other logins go on."""
    await commands.log_out(session, caller, body.refresh_token)


@router.post(
    "/api/v1/users",
    status_code=201,
    responses=refusals(NotAllowed, UserExists, PasswordTooShort, IdempotencyKeyReused, InProgress),
)
async def create_user(
    body: NewUser, password_hash: PreparedParam, session: SessionParam, response: Response
) -> UserView:
    """Make an account; only the operator can."""
    user = await commands.create_user(session, body, password_hash)
    return shown(response, await queries.view_of(user), "user")


@router.get("/api/v1/users", responses=refusals(NotAllowed))
async def browse_users(
    session: SessionParam, asked: PageParam, username: Annotated[Username | None, Query()] = None
) -> Page[UserView]:
    """All accounts, or the one of a name."""
    return await queries.browse(session, asked, username=username)


@router.get("/api/v1/users/me")
async def view_me(caller: CallerParam, session: SessionParam, response: Response) -> UserView:
    """The caller's own account."""
    return shown(response, await queries.user(session, caller.user_id), "user")


@router.post(
    "/api/v1/users/me/password",
    status_code=204,
    responses=refusals(
        WrongCredentials, AccountDisabled, PasswordTooShort, PasswordUnchanged, IdempotencyKeyReused, InProgress
    ),
)
async def change_password(
    body: PasswordChange, new_hash: PreparedParam, caller: CallerParam, session: SessionParam
) -> None:
    """Replace the caller's own password; their other logins end."""
    await commands.change_password(session, caller, body, new_hash)


_REFUSALS = (NotAllowed, NoSuchThing, ChangedMeanwhile, IdempotencyKeyReused, InProgress)


@router.post("/api/v1/users/{user_id}/disable", responses=refusals(*_REFUSALS, LastAdministrator))
async def disable_user(user_id: UserIdParam, session: SessionParam, response: Response) -> UserView:
    """Disable an account: its logins end, and it cannot log in."""
    return await _changed(session, response, await commands.disable_user(session, user_id))


@router.post("/api/v1/users/{user_id}/enable", responses=refusals(*_REFUSALS))
async def enable_user(user_id: UserIdParam, session: SessionParam, response: Response) -> UserView:
    """Take a disabled account into use again."""
    return await _changed(session, response, await commands.enable_user(session, user_id))


@router.post("/api/v1/users/{user_id}/make-admin", responses=refusals(*_REFUSALS))
async def make_admin(user_id: UserIdParam, session: SessionParam, response: Response) -> UserView:
    """Make a person an administrator, from their next access token on."""
    return await _changed(session, response, await commands.make_admin(session, user_id))


@router.post("/api/v1/users/{user_id}/set-password", responses=refusals(*_REFUSALS, PasswordTooShort))
async def set_password(
    user_id: UserIdParam,
    body: NewPassword,
    password_hash: PreparedParam,
    session: SessionParam,
    response: Response,
) -> UserView:
    """Give an account another password; its logins end."""
    user = await commands.set_password(session, user_id, body.password, password_hash)
    return await _changed(session, response, user)


async def _changed(session: AsyncSession, response: Response, user: User) -> UserView:
    await session.flush()  # the version that is shown is the one after the change
    return shown(response, await queries.view_of(user), "user")
