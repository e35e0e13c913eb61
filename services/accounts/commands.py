"""What can be done with accounts.

Login and refresh run their own short transactions: checking a password takes some 50 ms, for which no login may
hold up another, and a refresh token that was copied must end its login although the request is refused. A new
password comes with its hash, which was made before the transaction was opened.
"""

from __future__ import annotations

from pathlib import Path
from uuid import UUID, uuid4

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from medperf_contracts.accounts import NewUser, PasswordChange, Seeding, Tokens
from services.kernel import clock
from services.kernel.auth import Caller, TokenInvalid
from services.kernel.db import Database, unique_or
from services.kernel.errors import NoSuchThing

from . import signing_keys, tokens
from .domain import LOGIN_LASTS, Login, Store, User
from .errors import LoginEnded, PasswordUnchanged, UserExists, WrongCredentials
from .tables import STORE_ROW, logins, store, users


async def create_store(session: AsyncSession) -> Store:
    """The store's identity, made once."""
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    row = {"id": STORE_ROW, "store_id": uuid4(), "seeded_with": None, "created_at": await clock.now(session)}
    await session.execute(dialect.insert(store).values(row).on_conflict_do_nothing())
    return await session.get_one(Store, STORE_ROW)


async def mark_seeded(session: AsyncSession, body: Seeding, *, is_embedded: bool, is_on_loopback: bool) -> Store:
    """Mark an empty store as a demo's."""
    its_identity = await create_store(session)
    count = (await session.execute(select(func.count()).select_from(users))).scalar_one()
    its_identity.mark_seeded(body.demo, users=count, is_embedded=is_embedded, is_on_loopback=is_on_loopback)
    return its_identity


async def create_user(session: AsyncSession, body: NewUser, password_hash: str) -> User:
    """Make an account."""
    (await session.get_one(Store, STORE_ROW)).check_new_password(body.password)
    # Two people whose names differ in case alone are taken for each other by whoever reads a list of them.
    there = await session.scalar(
        select(User).where(func.lower(users.c.username) == body.username.lower()).order_by(users.c.id).limit(1)
    )
    if there is not None:
        raise UserExists(f"There is a user '{there.username}' already.")
    refusal = UserExists(f"There is a user '{body.username}' already.")
    user = User(
        username=body.username,
        password_hash=password_hash,
        is_admin=body.is_admin,
        created_at=await clock.now(session),
    )
    async with unique_or(session, refusal):
        session.add(user)
    return user


async def disable_user(session: AsyncSession, user_id: int) -> User:
    """Disable an account and end its logins; an access token that it has lasts its 15 minutes."""
    administrators = await session.scalars(
        select(User).where(users.c.is_admin, users.c.is_active).order_by(users.c.id).with_for_update()
    )
    others = [administrator for administrator in administrators if administrator.id != user_id]
    user = await _user_to_change(session, user_id)
    user.disable(other_administrators=len(others))
    await _end_logins(session, user.id)
    return user


async def enable_user(session: AsyncSession, user_id: int) -> User:
    """Take an account into use again."""
    user = await _user_to_change(session, user_id)
    user.enable()
    return user


async def make_admin(session: AsyncSession, user_id: int) -> User:
    """Make a person an administrator."""
    user = await _user_to_change(session, user_id)
    user.make_admin()
    return user


async def set_password(session: AsyncSession, user_id: int, password: str, password_hash: str) -> User:
    """Give an account another password and end its logins."""
    (await session.get_one(Store, STORE_ROW)).check_new_password(password)
    user = await _user_to_change(session, user_id)
    user.set_password(password_hash)
    await _end_logins(session, user.id)
    return user


async def change_password(session: AsyncSession, caller: Caller, body: PasswordChange, new_hash: str) -> None:
    """Replace the caller's own password and end their logins but the one that they changed it from."""
    user = await session.get(User, caller.user_id, with_for_update=True)
    if user is None:
        raise TokenInvalid("The account of this login is not in this store.")
    user.check_active()
    if not await tokens.verify_password(body.old_password, user.password_hash):
        raise WrongCredentials("The old password is wrong.", hint="Type the password that you log in with now.")
    if body.new_password == body.old_password:
        raise PasswordUnchanged("The new password is the old one: nothing was changed.")
    (await session.get_one(Store, STORE_ROW)).check_new_password(body.new_password)
    user.set_password(new_hash)
    await _end_logins(session, user.id, but=tokens.login_of(body.refresh_token))


async def _user_to_change(session: AsyncSession, user_id: int) -> User:
    """The account, held until the commit: a login at the same moment comes before, or after."""
    user = await session.get(User, user_id, with_for_update=True)
    if user is None:
        raise NoSuchThing(f"There is no user {user_id}.")
    return user


async def _end_logins(session: AsyncSession, user_id: int, *, but: UUID | None = None) -> None:
    alive = select(Login).where(logins.c.user_id == user_id, logins.c.is_ended.is_(False)).with_for_update()
    for login in await session.scalars(alive):
        if login.id != but:
            login.end()


async def log_in(database: Database, username: str, password: str, *, signing_keys_file: Path) -> Tokens:
    """Begin a login."""
    async with database.read() as session:
        user = await session.scalar(select(User).where(users.c.username == username))
    if not await tokens.verify_password(password, user.password_hash if user else None) or user is None:
        raise WrongCredentials("The name or the password is wrong.")
    login_id = uuid4()
    refresh_token = tokens.new_refresh_token(login_id)
    async with database.write() as session:
        verified_hash = user.password_hash
        user = await session.get_one(User, user.id, with_for_update={"read": True})
        user.check_login(verified_hash)
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
    return _answer(user, refresh_token, signing_keys_file)


async def refresh(database: Database, refresh_token: str, *, signing_keys_file: Path) -> Tokens:
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
    return _answer(user, successor, signing_keys_file)


async def log_out(session: AsyncSession, caller: Caller, refresh_token: str) -> None:
    """End the caller's login that this refresh token, or an earlier one of it, belongs to."""
    login_id = tokens.login_of(refresh_token)
    login = None if login_id is None else await session.get(Login, login_id, with_for_update=True)
    if login is not None and login.user_id == caller.user_id:
        login.end()


def _answer(user: User, refresh_token: str, signing_keys_file: Path) -> Tokens:
    return Tokens(
        access_token=tokens.sign_access_token(signing_keys.signing_key(signing_keys_file), user),
        refresh_token=refresh_token,
        expires_in_seconds=tokens.ACCESS_LASTS_SECONDS,
        user_id=user.id,
        username=user.username,
    )
