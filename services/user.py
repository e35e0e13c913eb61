"""`medperf-server user`: the accounts of a store, whether its server runs or not."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from medperf_contracts.accounts import ACCESS_LASTS_MINUTES, ENDED_GOES_ON_MINUTES, PASSWORD_LENGTH_LEAST

if TYPE_CHECKING:
    from .caller import Person

# What no command line can know: services verify access tokens by themselves.
_STILL_GOING_ON = (
    f"A command that they are in may go on for up to {ENDED_GOES_ON_MINUTES} minutes, an administrator's"
    " decisions too."
)

_password_option = click.option(
    "--password-stdin", is_flag=True, help="Read the password from the first line of standard input."
)


@click.group()
def user() -> None:
    """Accounts: of the running server, or of a stopped one's store."""


@user.command()
@click.argument("name")
@click.option(
    "--admin",
    is_flag=True,
    help="An administrator: decides about benchmarks; sees everything but scores and whose they are.",
)
@_password_option
def add(name: str, admin: bool, password_stdin: bool) -> None:
    """Make an account."""
    _check_name(name)
    password = _new_password(name, from_stdin=password_stdin)
    with _operator(makes_store=True) as operator:
        made = operator.post("users", {"username": name, "password": password, "is_admin": admin}).body
    click.echo(f"Added {_role(made)} {name} (ID {made['id']}).")


@user.command()
@click.option("--json", "as_json", is_flag=True, help="For programs: a JSON array.")
def ls(as_json: bool) -> None:
    """Show all accounts."""
    with _operator() as operator:
        accounts = list(_all(operator))
    if as_json:
        click.echo(json.dumps(accounts, indent=2))
        return
    rows = [("ID", "NAME", "ROLE", "STATE", "SINCE")]
    for account in accounts:
        state = "active" if account["is_active"] else "disabled"
        rows.append((str(account["id"]), account["username"], _role(account), state, account["created_at"][:10]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@user.command()
@click.argument("name")
def disable(name: str) -> None:
    """End an account's logins; it cannot log in until it is enabled."""
    _change(name, "disable")
    click.echo(
        f"Disabled {name}: they cannot log in any more, and no login of theirs is renewed. {_STILL_GOING_ON}"
    )


@user.command()
@click.argument("name")
def enable(name: str) -> None:
    """Let a disabled account log in again."""
    _change(name, "enable")
    click.echo(f"Enabled {name}.")


@user.command("make-admin")
@click.argument("name")
def make_admin(name: str) -> None:
    """Make a person an administrator."""
    _change(name, "make-admin")
    click.echo(f"{name} is an administrator, at the latest in {ACCESS_LASTS_MINUTES} minutes.")


@user.command("set-password")
@click.argument("name")
@_password_option
def set_password(name: str, password_stdin: bool) -> None:
    """Give an account another password, and end its logins."""
    password = _new_password(name, from_stdin=password_stdin)
    _change(name, "set-password", {"password": password})
    click.echo(f"Changed the password of {name}: no login of theirs is renewed. {_STILL_GOING_ON}")


@contextmanager
def _operator(*, makes_store: bool = False) -> Iterator[Person]:
    from .operator import operator

    with operator(makes_store=makes_store) as person:
        yield person


def _change(name: str, command: str, body: dict[str, Any] | None = None) -> None:
    from .embedded.store import StoreError

    with _operator() as operator:
        found = operator.get("users", username=name).body["items"]
        if not found:
            raise StoreError(f"There is no account '{name}'.", hint="See them all: medperf-server user ls")
        operator.post(f"users/{found[0]['id']}/{command}", body or {})


def _all(operator: Person) -> Iterator[dict[str, Any]]:
    cursor = "0"
    while cursor is not None:
        page = operator.get("users", cursor=cursor).body
        yield from page["items"]
        cursor = page["next_cursor"]


def _role(account: dict[str, Any]) -> str:
    return "administrator" if account["is_admin"] else "user"


def _new_password(name: str, *, from_stdin: bool) -> str:
    from .embedded.store import StoreError

    if from_stdin:
        return _piped_password()
    if not sys.stdin.isatty():
        raise StoreError(
            "There is no terminal to ask for the password.", hint="Give it on standard input: --password-stdin"
        )
    prompt = f"Password for {name} (at least {PASSWORD_LENGTH_LEAST} characters)"
    password: str = click.prompt(prompt, hide_input=True, confirmation_prompt="The same again", err=True)
    return password


def _piped_password() -> str:
    """The first line of standard input, however lines end where it was written."""
    from .embedded.store import StoreError

    try:
        password = sys.stdin.readline().removesuffix("\n").removesuffix("\r")
        password.encode()
    except UnicodeError:
        raise StoreError(
            "The password on standard input is not text in UTF-8.",
            hint="Give a line of text; if it holds other letters than ASCII's, in UTF-8.",
        ) from None
    if not password:
        raise StoreError(
            "There is no password on standard input.",
            hint=f"Give one of at least {PASSWORD_LENGTH_LEAST} characters on its first line.",
        )
    return password


def _check_name(name: str) -> None:
    """Refuse a name that no account can have, before a password is asked for."""
    from pydantic import TypeAdapter, ValidationError

    from medperf_contracts.values import Username

    from .embedded.store import StoreError

    try:
        TypeAdapter(Username).validate_python(name)
    except ValidationError:
        raise StoreError(
            f"{name!r:.80} cannot be the name of an account.",
            hint="A name has 1 to 64 characters: letters without accents, digits, and . _ @ -; the first is a"
            " letter or a digit.",
        ) from None
