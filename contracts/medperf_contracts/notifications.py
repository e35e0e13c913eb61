"""Views of the notifications service."""

from __future__ import annotations

from .values import Id, Instant, ThingView


class NotificationView(ThingView):
    """One thing that happened, told to one person."""

    user_id: Id
    topic: str
    about: str
    text: str
    created_at: Instant
    is_read: bool
