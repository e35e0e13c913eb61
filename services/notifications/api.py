"""The endpoints of notifications."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query, Response

from medperf_contracts.notifications import NotificationView
from medperf_contracts.paging import Page
from medperf_contracts.values import Id
from services.kernel.errors import ChangedMeanwhile, NoSuchThing, NotAllowed
from services.kernel.http import CallerParam, SessionParam, new_router, refusals, shown
from services.kernel.idempotency import IdempotencyKeyReused, InProgress
from services.kernel.paging import PageParam

from . import commands, queries

router = new_router()


@router.get("/api/v1/notifications")
async def browse_notifications(
    caller: CallerParam,
    session: SessionParam,
    asked: PageParam,
    unread: Annotated[bool, Query(description="Only those not read yet")] = False,
) -> Page[NotificationView]:
    """The caller's own notifications, oldest first."""
    return await queries.browse(session, caller, only_unread=unread, asked=asked)


@router.get("/api/v1/notifications/{notification_id}", responses=refusals(NoSuchThing, NotAllowed))
async def view_notification(
    notification_id: Annotated[Id, Path()], caller: CallerParam, session: SessionParam, response: Response
) -> NotificationView:
    """One notification of the caller's own; it stays unread."""
    notification = await queries.find(session, caller, notification_id)
    return shown(response, queries.view_of(notification), "notification")


@router.post(
    "/api/v1/notifications/{notification_id}/read",
    responses=refusals(NoSuchThing, NotAllowed, ChangedMeanwhile, IdempotencyKeyReused, InProgress),
)
async def read_notification(
    notification_id: Annotated[Id, Path()], caller: CallerParam, session: SessionParam, response: Response
) -> NotificationView:
    """Mark a notification as read; again changes nothing."""
    notification = await commands.mark_read(session, caller, notification_id)
    return shown(response, queries.view_of(notification), "notification")
