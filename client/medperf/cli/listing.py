"""What the commands `ls` and `view` of every noun share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

import click

from medperf.errors import UsageError
from medperf.terminal import printable

from .prompts import remember_yes
from .tables import as_json, plain, print_table, print_view

if TYPE_CHECKING:
    from medperf.errors import ClientError
    from medperf_contracts.values import ThingView

    from .session import Session

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")
Thing = TypeVar("Thing", bound="ThingView")


@dataclass(frozen=True)
class Column(Generic[T]):
    """A column of a list: its header, and what it shows of an item."""

    header: str
    of: Callable[[T], object]


def print_list(
    items: Iterable[T],
    columns: Sequence[Column[T]],
    *,
    as_json_text: bool,
    if_empty: str,
) -> None:
    """Print a list as a table, or as one JSON array of whole items; `if_empty` says that there are none."""
    if as_json_text:
        click.echo(as_json([plain(item) for item in items]))
        return
    rows = [[column.of(item) for column in columns] for item in items]
    print_table(rows, [column.header for column in columns], if_empty=if_empty)


def print_thing(
    session: Session,
    kind: str,
    thing_id: int,
    view: type[Thing],
    *,
    as_json_text: bool,
    hidden: frozenset[str] = frozenset(),
) -> Thing:
    """Print one thing of the server whole, and return it; `kind` is its noun, such as `benchmark`.

    `hidden` are those of its keys that are null for whoever may not see them.
    """
    thing = session.gateway.get(f"/{kind}s/{thing_id}", view, seen=[f"{kind}/{thing_id}"])
    print_view(thing, as_json_text=as_json_text, hidden=hidden)
    return thing


def tell_left_out(name: str, damaged: ClientError) -> None:
    """Say that a local thing cannot be shown, and what to do."""
    click.echo(printable(f"Left out: {name}. {damaged}\nWhat to do: {damaged.hint}"), err=True)


def refuse_with_local(**filters: object) -> None:
    """UsageError where a filter was given that only the server can apply."""
    for name, value in filters.items():
        if value:
            raise UsageError(
                f"--{name} and --local do not go together: this machine does not know it.",
                hint=f"Leave --local out to ask the server, or --{name}.",
            )


def when(instant: datetime | None) -> str | None:
    """An instant as a person reads it, in the machine's time zone."""
    return None if instant is None else f"{instant.astimezone():%Y-%m-%d %H:%M}"


def owner_filter(is_mine: bool) -> str | None:
    """The filter behind `--mine`."""
    return "me" if is_mine else None


def mine_option(command: Callable[P, R]) -> Callable[P, R]:
    """Add `--mine`, given to the command as `mine`."""
    return click.option("--mine", is_flag=True, help="Only what is yours.")(command)


def local_option(command: Callable[P, R]) -> Callable[P, R]:
    """Add `--local`, given to the command as `local`."""
    return click.option("--local", is_flag=True, help="What is on this machine, without asking the server.")(
        command
    )


def choice(values: Iterable[Any]) -> click.Choice[str]:
    """One of an enumeration's values, in upper or lower case."""
    return click.Choice([str(value) for value in values], case_sensitive=False)


def silent_yes_option(command: Callable[P, R]) -> Callable[P, R]:
    """Add `--yes` to a command that asks nothing itself: the local folder may have to be set aside."""
    return click.option(
        "--yes",
        "-y",
        is_flag=True,
        expose_value=False,
        callback=remember_yes,
        help="Answer yes to every question.",
    )(command)
