"""`medperf cache`: what is kept on this machine that can be had again; how to check it and to make space."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from medperf.terminal import printable

from .listing import Column, print_list, silent_yes_option, when
from .prompts import confirm, yes_option
from .session import Session, pass_session
from .tables import as_json, json_option

if TYPE_CHECKING:
    from medperf.cache import Kept

_DAYS_UNLESS_GIVEN = 30
# A hash has 64 digits; these tell apart all that one machine has.
_SHOWN_DIGITS = 12


@click.group(no_args_is_help=True)
def cache() -> None:
    """What is kept here that can be had again: registered files, containers, packages."""


@cache.command()
@json_option
@silent_yes_option
@pass_session
def ls(session: Session, as_json_text: bool) -> None:
    """List it: what, how large, of which container, last used when. Asks no server."""
    from medperf.cache import kept_things

    _print(kept_things(session.home), as_json_text=as_json_text)


@cache.command()
@json_option
@silent_yes_option
@pass_session
def verify(session: Session, as_json_text: bool) -> None:
    """Hash all of it again, and name what is damaged; that is no loss, and ends with an exit code of its own."""
    from medperf.cache import kept_things
    from medperf.errors import IntegrityError

    things = kept_things(session.home)
    damaged = [kept for kept in things if not kept.is_whole()]
    if damaged or as_json_text:
        _print(damaged, as_json_text=as_json_text)
    if damaged:
        raise IntegrityError(
            f"{len(damaged)} of {len(things)} things that are kept are not what they were; they are never used as"
            " they are.",
            hint="Nothing need be done: the next command that needs one fetches or makes it anew; what a bundle"
            " brought, `medperf bundle import` brings again. Where it comes back, check this machine's disk.",
        )
    click.echo(f"All {len(things)} are what they were ({_size(things)}).", err=as_json_text)


@cache.command()
@click.option(
    "--unused_days",
    type=click.IntRange(min=0, max=36_500),
    default=_DAYS_UNLESS_GIVEN,
    show_default=True,
    metavar="N",
    help="Remove what nothing used in the last N days; 0 is all.",
)
@yes_option
@pass_session
def prune(session: Session, unused_days: int, yes: bool) -> None:
    """Remove what was not used lately, after a question that lists it. It is fetched again when it is needed.

    Prepared data, results, records of runs and logs are never touched, nor anything while another command works.
    """
    from medperf.cache import kept_things

    limit = datetime.now(UTC) - timedelta(days=unused_days)

    def unused() -> list[Kept]:
        return [kept for kept in kept_things(session.home) if kept.used_at <= limit and not kept.is_at_work]

    asked = unused()
    if not asked:
        click.echo(f"Everything was used within {unused_days} days: nothing goes.")
        return
    _print(asked, as_json_text=False)
    click.echo("What a bundle brought comes back with that bundle only; the rest is fetched again.")
    confirm(f"Remove these {len(asked)} ({_size(asked)})?", yes=yes)
    names = {kept.path for kept in asked}
    with session.alone():
        # Somebody may have used one while the question stood.
        going = [kept for kept in unused() if kept.path in names]
        for kept in going:
            kept.remove()
    click.echo(f"Removed {len(going)}, {_size(going)}.")


def _print(things: Sequence[Kept], *, as_json_text: bool) -> None:
    if as_json_text:
        click.echo(as_json([_as_plain(kept) for kept in things]))
        return
    columns: list[Column[Kept]] = [
        Column("What", lambda it: it.kind.value),
        Column("Name", lambda it: it.name if it.name.endswith(".whl") else it.name[:_SHOWN_DIGITS]),
        Column("Size", lambda it: _size([it])),
        Column("Of container", lambda it: ", ".join(it.containers)),
        Column("Last used", lambda it: when(it.used_at)),
    ]
    print_list(things, columns, as_json_text=False, if_empty="Nothing is kept.")


def _as_plain(kept: Kept) -> dict[str, object]:
    return {
        "kind": kept.kind.value,
        "name": printable(kept.name),
        "path": printable(str(kept.path)),
        "size_bytes": kept.size_bytes,
        "containers": list(kept.containers),
        "used_at": kept.used_at.isoformat(timespec="seconds"),
    }


def _size(things: Sequence[Kept]) -> str:
    return f"{sum(kept.size_bytes for kept in things) / 1e6:,.1f} MB"
