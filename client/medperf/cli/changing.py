"""What the commands share that register a thing, change it, or bring it into operation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar
from urllib.parse import urlsplit

import click

from medperf.errors import Refused, UsageError
from medperf.home import is_loopback
from medperf.terminal import printable

from .prompts import confirm, show_before_sending

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from medperf.assets import Assets
    from medperf_contracts.registry import BenchmarkView, ContainerView, DatasetView, NewDataset
    from medperf_contracts.values import Body, Changes

    from .progress import Progress
    from .session import Session

    Thing = BenchmarkView | ContainerView | DatasetView

ThingT = TypeVar("ThingT", bound="Thing")
P = ParamSpec("P")
R = TypeVar("R")

UID = click.IntRange(min=1, max=2**63 - 1)
ASSETS = "/assets/"
# A value among the differences stands on a line or two.
_SHOWN_CHARACTERS = 200


def check_owner(session: Session, noun: str, thing: Thing, *, or_administrator: bool = False) -> None:
    """Raise Refused, as the server would after the work and the question, unless the thing is theirs to change."""
    from medperf_contracts.accounts import UserView

    if thing.owner_id == session.gateway.user_id:
        return
    if or_administrator and session.gateway.get("/users/me", UserView).is_admin:
        return
    whose = "its owner or an administrator" if or_administrator else "its owner"
    raise not_allowed(whose, f"{noun} {thing.id}", f"Its owner is {thing.owner_name}.")


def not_allowed(who: str, what: str, whose: str) -> Refused:
    """The server's refusal of what is not this person's to do, before anything is done."""
    hint = f"{whose} `medperf auth status` shows who you are."
    return Refused(f"Only {who} may do this with {what}.", hint=printable(hint), code="not_allowed", status=403)


def register(
    session: Session, noun: str, body: Body, view: type[ThingT], *, yes: bool, seen: Iterable[str] = ()
) -> ThingT:
    """Show what will be sent, ask, send it, and say which UID it has: also where it was registered before.

    The very same there already is no failure: nothing is left to do, and the thing that stands is the one to go on
    with. Where it differs in anything it is refused, each difference named: what was given is not registered.
    """
    from .work import existing_id

    show_before_sending(f"This is all that will be sent to {session.server}:", body)
    confirm(f"Register this {noun}?", yes=yes)
    try:
        made = session.gateway.post(f"/{noun}s", body, view, seen=seen)
    except Refused as refused:
        there = existing_id(refused, noun)
        if there is None:
            raise
        made = _get(session, noun, there, view)
        if differing := differences(body, made):
            raise _stands_otherwise(refused, noun, made, differing) from refused
        click.echo(printable(f"You registered the same before, as {made.name!r} ({made.state}): that one stands."))
    else:
        click.echo(f"Registered as {made.state}.")
    click.echo(f"Server UID: {made.id}")
    return made


def differences(given: Body, registered: Thing) -> list[str]:
    """What of a body is registered otherwise, a line a field."""
    return [
        f"{field}: registered is {_in_short(getattr(registered, field))}, you gave {_in_short(value)}"
        for field, value in given
        if value != getattr(registered, field)
    ]


def tell_registered(body: NewDataset, registered: DatasetView) -> None:
    """Say that a dataset is registered, and what of it otherwise than is said now, where it was so before."""
    click.echo(f"Registered as {registered.state.value}. Server UID: {registered.id}")
    if differing := differences(body, registered):
        click.echo("You had registered the same data before: that one stands, and what you say now is not kept.")
        click.echo(printable("".join(f"  {line}\n" for line in differing)), nl=False)
        click.echo(f"Next, if it is to be so: medperf dataset update {registered.id} --help")


def _in_short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _stands_otherwise(refused: Refused, noun: str, made: Thing, differing: list[str]) -> Refused:
    lines = "".join(f"\n  {line}" for line in differing)
    return Refused(
        f"You registered a {noun} of the same parts before: {noun} {made.id} ({made.name}), {made.state}. It"
        f" stands as it is; what you gave now is not registered:{lines}",
        hint=f"Go on with {noun} {made.id}. `medperf {noun} update --help` lists what of it may change in any"
        " state; for anything else register another, of which at least one part differs.",
        code=refused.code,
        status=refused.status,
        existing=refused.existing,
    )


def set_operational(
    session: Session, noun: str, uid: int, view: type[ThingT], *, meaning: str, yes: bool
) -> ThingT | None:
    """Bring a thing into operation, after a question that says what that means; None where it was already."""
    from medperf_contracts.values import State

    thing = _get(session, noun, uid, view)
    check_owner(session, noun, thing)
    if thing.state is State.OPERATION:
        click.echo(printable(f"{noun.capitalize()} {uid} ({thing.name}) is in operation already."))
        return None
    click.echo(meaning)
    confirm(printable(f"Bring {noun} {uid} ({thing.name}) into operation? It cannot be undone."), yes=yes)
    changed = session.gateway.post(f"/{noun}s/{uid}/set-operational", None, view, seen=[f"{noun}/{uid}"])
    click.echo(printable(f"{noun.capitalize()} {uid} ({changed.name}) is in {changed.state}."))
    return changed


def update(
    session: Session,
    noun: str,
    uid: int,
    view: type[ThingT],
    changes: type[Changes],
    given: Mapping[str, object],
    *,
    yes: bool,
    check: Callable[[ThingT], None] = lambda _: None,
) -> None:
    """Change what may change of the thing as it is now; a change that somebody else made meanwhile is not lost.

    `given` are the fields that the person named; `check` looks at them beside the thing, before anything is sent.
    """
    from medperf.bodies import checked_input

    if not given:
        raise UsageError(
            "Say what is to change.", hint=f"`medperf {noun} update --help` lists what may change in any state."
        )
    with checked_input():
        body = changes(**given)
    thing = _get(session, noun, uid, view)
    check_owner(session, noun, thing, or_administrator=True)
    check(thing)
    click.echo(printable(f"{noun.capitalize()} {uid} ({thing.name}) is at version {thing.version}."))
    show_before_sending(f"This change will be sent to {session.server}:", body)
    confirm(f"Change this {noun}?", yes=yes)
    try:
        changed = session.gateway.patch(f"/{noun}s/{uid}", body, view, version=thing.version)
    except Refused as refused:
        if refused.code != "precondition_failed":
            raise
        raise Refused(
            f"Somebody changed it since you were shown it: {refused}",
            hint=f"Look at what it is now (medperf {noun} view {uid}), then run this command again.",
            code=refused.code,
            status=refused.status,
        ) from refused
    if changed.version == thing.version:
        click.echo("It was so already: nothing was changed.")
    else:
        click.echo(f"Changed: it is at version {changed.version} now.")


def validity_option(command: Callable[P, R]) -> Callable[P, R]:
    """Add `--valid/--invalid`, given to the command as `is_valid`."""
    return click.option("--valid/--invalid", "is_valid", default=None, help="Whether others should build on it.")(
        command
    )


def what_was_given(**fields: object) -> dict[str, object]:
    """The fields that the person named."""
    return {name: value for name, value in fields.items() if value is not None}


def downloads(session: Session, progress: Progress) -> Assets:
    """The store of fetched files, which shows how much of a file is here."""
    from medperf.assets import Assets

    gateway = session.gateway

    def note(done: int, _: int | None) -> None:
        progress.note(f"{done / 1e6:.1f} MB fetched")

    return Assets(
        session.home.assets,
        lambda url, sink: gateway.download(url, sink, on_progress=note),
        on_wait=progress.line,
    )


def check_address(given: str, option: str) -> None:
    """Raise UsageError, before anything is asked for, unless this is an address and no file of this machine.

    A path that was meant as a file here would be sent to the server as an address of its own, and registered.
    """
    is_url = given.startswith(("http://", "https://"))
    file = Path(given)
    if not is_url and is_here(file):
        raise UsageError(
            f"{given} is {'a folder' if file.is_dir() else 'a file'} on this machine; {option} takes the address"
            " where every site can fetch it.",
            hint="Pack a folder (medperf container pack), put the archive on a server, and give its address,"
            " https://…; an embedded server's operator gives a file out with: medperf-server asset add FILE",
        )
    if not is_url and not given.startswith(ASSETS):
        raise no_address(given)
    if is_url and is_loopback(urlsplit(given).hostname or ""):
        click.echo(
            printable(f"Warning: {given} is an address of this machine itself: other sites cannot fetch it."),
            err=True,
        )


def is_here(file: Path) -> bool:
    """Whether there is such a file or folder on this machine."""
    try:
        return file.exists()
    except (OSError, ValueError):  # too long for a path, or with a NUL
        return False


def no_address(given: str) -> UsageError:
    """The error for what is neither a file here nor where a file can be fetched."""
    return UsageError(
        f"There is no file {given}, and it is no address either.",
        hint=f"Check the path, or give an address: https://…, or {ASSETS}… of the server.",
    )


def fetched_new(
    assets: Assets, url: str, step: Callable[[str], AbstractContextManager[object]]
) -> tuple[Path, str]:
    """A file that is about to be registered, and its SHA-256; the person typed the URL and can mend it."""
    try:
        with step(f"fetch {url}"):
            return assets.fetch_new(url)
    except Refused as refused:
        raise Refused(
            str(refused),
            hint="Check the address. On an embedded server, `medperf-server asset add FILE` serves a file and"
            " prints its address.",
            code=refused.code,
            status=refused.status,
        ) from refused


def check_same(url: str, found: str, registered: str | None, what: str) -> None:
    """Raise IntegrityError unless the file behind a new URL is the one that is registered."""
    from medperf.errors import IntegrityError

    if registered is not None and found != registered:
        raise IntegrityError(
            f"{url} gives a file with the SHA-256 {found}, but {registered} is registered as {what}.",
            hint="Give an address of that very file; another file is another thing, to be registered anew.",
        )


def _get(session: Session, noun: str, uid: int, view: type[ThingT]) -> ThingT:
    return session.gateway.get(f"/{noun}s/{uid}", view, seen=[f"{noun}/{uid}"])
