"""What can be asked of accounts."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from medperf_contracts import __version__
from medperf_contracts.accounts import ServerView, UserView
from medperf_contracts.paging import Page
from services.kernel import clock
from services.kernel.auth import TokenInvalid
from services.kernel.paging import PageRequest, page

from .domain import Store, User
from .tables import STORE_ROW, users


async def server(session: AsyncSession, *, is_embedded: bool) -> ServerView:
    """Which store this is."""
    store = await session.get_one(Store, STORE_ROW)
    return ServerView(
        store_id=store.store_id,
        version=__version__,
        is_embedded=is_embedded,
        seeded_with=store.seeded_with,
        time=await clock.now(session),
    )


async def user(session: AsyncSession, user_id: int) -> UserView:
    """One account; a store put back from an older copy may not have that of a login it signed."""
    user = await session.get(User, user_id)
    if user is None:
        raise TokenInvalid("The account of this login is not in this store.")
    return await view_of(user)


async def browse(session: AsyncSession, asked: PageRequest, *, username: str | None) -> Page[UserView]:
    """All accounts, or the one of a name."""
    query = select(User) if username is None else select(User).where(users.c.username == username)
    return await page(session, query, by=users.c.id, asked=asked, view=view_of)


async def view_of(user: User) -> UserView:
    """An account without its password."""
    return UserView(
        id=user.id,
        version=user.version,
        username=user.username,
        is_admin=user.is_admin,
        is_active=user.is_active,
        created_at=user.created_at,
    )
