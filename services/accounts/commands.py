"""What can be done with accounts.

Login and refresh run their own short transactions: checking a password takes some 50 ms, for which no login may
hold up another, and a refresh token that was copied must end its login although the request is refused.
"""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from medperf_contracts.accounts import NewUser, Seeding, Tokens
from services.kernel import clock
from services.kernel.auth import Caller
from services.kernel.db import Database, unique_or

from . import tokens
from .domain import LOGIN_LASTS, Login, Store, User
from .errors import LoginEnded, UserExists, WrongCredentials
from .tables import users

STORE_ROW = 1


async def create_store(session: AsyncSession) -> Store:
    """The store's identity, made once."""
    store = await session.get(Store, STORE_ROW)
    if store is None:
        store = Store(id=STORE_ROW, store_id=uuid4(), seeded_with=None, created_at=await clock.now(session))
        session.add(store)
    return store


async def mark_seeded(session: AsyncSession, body: Seeding, *, is_embedded: bool, is_on_loopback: bool) -> Store:
    """Mark an empty store as a demo's."""
    store = await create_store(session)
    count = (await session.execute(select(func.count()).select_from(users))).scalar_one()
    store.mark_seeded(body.demo, users=count, is_embedded=is_embedded, is_on_loopback=is_on_loopback)
    return store


async def create_user(session: AsyncSession, body: NewUser) -> User:
    """Make an account."""
    refusal = UserExists(f"There is a user '{body.username}' already.")
    if await session.scalar(select(User).where(users.c.username == body.username)) is not None:
        raise refusal
    user = User(
        username=body.username,
        password_hash=await tokens.hash_password(body.password),
        is_admin=body.is_admin,
        created_at=await clock.now(session),
    )
    async with unique_or(session, refusal):
        session.add(user)
    return user


async def log_in(database: Database, username: str, password: str, *, signing_key_file: Path) -> Tokens:
    """Begin a login."""
    async with database.read() as session:
        user = await session.scalar(select(User).where(users.c.username == username))
    if not await tokens.verify_password(password, user.password_hash if user else None) or user is None:
        raise WrongCredentials("The name or the password is wrong.")
    login_id = uuid4()
    refresh_token = tokens.new_refresh_token(login_id)
    async with database.write() as session:
        session.add(
            Login(
                id=login_id,
                user_id=user.id,
                current_hash=tokens.hash_token(refresh_token),
                previous_hash=None,
                expires_at=await clock.now(session) + LOGIN_LASTS,
                is_ended=False,
            )
        )
    return _answer(user, refresh_token, signing_key_file)


async def refresh(database: Database, refresh_token: str, *, signing_key_file: Path) -> Tokens:
    """Go on with a login: the token is replaced by its successor."""
    login_id = tokens.login_of(refresh_token)
    async with database.write() as session:
        login = None if login_id is None else await session.get(Login, login_id, with_for_update=True)
        if login is None:
            raise LoginEnded("This login is not one of this server's.")
        login.check_alive(at=await clock.now(session))
        successor = tokens.new_refresh_token(login.id)
        is_good = login.rotate(
            tokens.hash_token(refresh_token), tokens.hash_token(successor), at=await clock.now(session)
        )
        user = await session.get_one(User, login.user_id)
    if not is_good:  # after the commit: that the login is ended must last
        raise LoginEnded("This login was used from two places, so it was ended.")
    return _answer(user, successor, signing_key_file)


async def log_out(session: AsyncSession, caller: Caller, refresh_token: str) -> None:
    """End the caller's login that this refresh token, or an earlier one of it, belongs to."""
    login_id = tokens.login_of(refresh_token)
    login = None if login_id is None else await session.get(Login, login_id, with_for_update=True)
    if login is not None and login.user_id == caller.user_id:
        login.end()


def _answer(user: User, refresh_token: str, signing_key_file: Path) -> Tokens:
    return Tokens(
        access_token=tokens.sign_access_token(tokens.load_signing_key(signing_key_file), user),
        refresh_token=refresh_token,
        expires_in_seconds=tokens.ACCESS_LASTS_SECONDS,
        user_id=user.id,
        username=user.username,
    )
