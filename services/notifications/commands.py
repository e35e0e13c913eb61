"""What can be done with notifications: read them."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from services.kernel import clock
from services.kernel.auth import Caller
from services.kernel.errors import NoSuchThing

from .domain import Notification


async def mark_read(session: AsyncSession, caller: Caller, notification_id: int) -> Notification:
    """Its reader has read it; again changes nothing."""
    notification = await session.get(Notification, notification_id)
    if notification is None:
        raise NoSuchThing(f"There is no notification {notification_id} that you may see.")
    caller.require(notification.roles_of(caller.user_id), thing=f"notification {notification_id}")
    notification.mark_read(at=await clock.now(session))
    await session.flush()
    return notification
