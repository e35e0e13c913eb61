"""What can be asked of notifications."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from medperf_contracts.notifications import NotificationView
from medperf_contracts.paging import Page
from services.kernel.auth import Caller
from services.kernel.errors import NoSuchThing
from services.kernel.paging import PageRequest, page

from .domain import Notification
from .tables import notifications


async def find(
    session: AsyncSession, caller: Caller, notification_id: int, *, to_change: bool = False
) -> Notification:
    """The notification, for its reader; held until the commit where it is to be changed."""
    notification = await session.get(Notification, notification_id, with_for_update=to_change or None)
    if notification is None:
        raise NoSuchThing(f"There is no notification {notification_id} that you may see.")
    caller.require(notification.roles_of(caller.user_id), thing=f"notification {notification_id}")
    return notification


async def browse(
    session: AsyncSession, caller: Caller, *, only_unread: bool, asked: PageRequest
) -> Page[NotificationView]:
    """The caller's own notifications, oldest first; an administrator too sees no others."""
    query = select(Notification).where(notifications.c.user_id == caller.user_id)
    if only_unread:
        query = query.where(notifications.c.read_at.is_(None))

    async def show(notification: Notification) -> NotificationView:
        return view_of(notification)

    return await page(session, query, by=notifications.c.id, asked=asked, view=show)


def view_of(notification: Notification) -> NotificationView:
    """A notification as its reader sees it."""
    return NotificationView(
        id=notification.id,
        version=notification.version,
        user_id=notification.user_id,
        topic=notification.topic,
        about=notification.about,
        text=notification.text,
        created_at=notification.created_at,
        is_read=notification.read_at is not None,
    )
