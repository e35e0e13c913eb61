"""`medperf notifications`: what happened that concerns the person who is logged in."""

from __future__ import annotations

import click

from medperf.errors import UsageError

from .changing import UID
from .listing import Column, print_list, print_thing, silent_yes_option, when
from .session import Session, pass_session
from .tables import json_option


@click.group()
def notifications() -> None:
    """What happened that concerns you."""


@notifications.command()
@click.option("--unread", is_flag=True, help="Only those not marked as read.")
@json_option
@silent_yes_option
@pass_session
def ls(session: Session, unread: bool, as_json_text: bool) -> None:
    """List your notifications, newest last."""
    from medperf_contracts.notifications import NotificationView

    columns = [
        Column[NotificationView]("UID", lambda it: it.id),
        Column[NotificationView]("When", lambda it: when(it.created_at)),
        Column[NotificationView]("About", lambda it: it.about),
        Column[NotificationView]("What", lambda it: it.text),
        Column[NotificationView]("Read", lambda it: it.is_read),
    ]
    found = session.gateway.items("/notifications", NotificationView, unread=unread or None)
    print_list(found, columns, as_json_text=as_json_text, if_empty="There are no such notifications.")


@notifications.command()
@click.argument("notification_uid", type=UID)
@json_option
@silent_yes_option
@pass_session
def view(session: Session, notification_uid: int, as_json_text: bool) -> None:
    """Show a notification whole. It stays unread: `medperf notifications read` marks it."""
    from medperf_contracts.notifications import NotificationView

    print_thing(session, "notification", notification_uid, NotificationView, as_json_text=as_json_text)


@notifications.command()
@click.argument("notification_uids", type=UID, nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that are unread.")
@silent_yes_option
@pass_session
def read(session: Session, notification_uids: tuple[int, ...], everything: bool) -> None:
    """Mark notifications as read."""
    from medperf_contracts.notifications import NotificationView

    if bool(notification_uids) == everything:
        raise UsageError("Name the notifications by their UIDs, or give --all.", hint="`medperf notifications ls`")
    if everything:
        found = session.gateway.items("/notifications", NotificationView, unread=True)
        notification_uids = tuple(notification.id for notification in found)
    for uid in notification_uids:
        session.gateway.post(f"/notifications/{uid}/read", None, NotificationView)
    click.echo(f"Marked as read: {len(notification_uids)}.")
