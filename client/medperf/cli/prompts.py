"""Questions to the person, and what is shown before it is sent."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import click

from medperf.errors import NotConfirmed, UsageError

from .session import Session

if TYPE_CHECKING:
    from medperf_contracts.values import Body

P = ParamSpec("P")
R = TypeVar("R")


def has_terminal() -> bool:
    """Whether somebody is there to answer."""
    return sys.stdin is not None and sys.stdin.isatty()


def confirm(question: str, *, yes: bool) -> None:
    """Return when the answer is yes; NotConfirmed when it is no, or when there is nobody to ask."""
    if yes:
        click.echo(f"{question} yes (--yes)", err=True)
        return
    if not has_terminal():
        raise NotConfirmed(
            f"There is no terminal to ask: {question}",
            hint="Run it in a terminal, or add --yes to answer yes to every question.",
        )
    if not click.confirm(question, default=False, err=True):
        raise NotConfirmed(
            "You answered no: nothing was done.", hint="Run the command again if you change your mind."
        )


def ask_password(username: str) -> str:
    """The password of somebody whose login has ended, typed unseen."""
    click.echo("Your login has ended.", err=True)
    try:
        password: str = click.prompt(f"Password for {username}", hide_input=True, err=True)
    except click.Abort:
        # Not a question before the work: some of it is done and perhaps sent.
        raise KeyboardInterrupt from None
    return password


def piped_password(which: str) -> str:
    """The next line of standard input, however lines end where it was written; `which` is what it is called."""
    try:
        password = sys.stdin.readline().removesuffix("\n").removesuffix("\r")
        password.encode()
    except UnicodeError:
        raise UsageError(
            f"The {which} on standard input is not text in UTF-8.",
            hint="Give a line of text; if it holds other letters than ASCII's, in UTF-8.",
        ) from None
    if not password:
        raise UsageError(
            f"There is no {which} on standard input.", hint="Give it, and nothing else, on a line of its own."
        )
    return password


def show_before_sending(title: str, body: Body) -> None:
    """Print, as YAML, exactly what will be sent."""
    from .tables import as_yaml

    click.echo(f"{title}\n")
    click.echo("".join(f"  {line}\n" for line in as_yaml(body.as_sent()).splitlines()))


def yes_option(command: Callable[P, R]) -> Callable[P, R]:
    """Add `--yes`/`-y`, given to the command as `yes`."""
    return click.option(
        "--yes",
        "-y",
        is_flag=True,
        callback=remember_yes,
        help="Answer yes to every question.",
    )(command)


def remember_yes(context: click.Context, _: click.Parameter, value: bool) -> bool:
    """Tell the session that every question is answered with yes."""
    if value:
        context.ensure_object(Session).yes = True
    return value
