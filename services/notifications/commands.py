"""What can be done with notifications: read them."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from services.kernel import clock
from services.kernel.auth import Caller

from .domain import Notification
from .queries import find


async def mark_read(session: AsyncSession, caller: Caller, notification_id: int) -> Notification:
    """Its reader has read it; again changes nothing."""
    notification = await find(session, caller, notification_id, to_change=True)
    notification.mark_read(at=await clock.now(session))
    await session.flush()
    return notification
