"""`medperf-server user`: the accounts of a store, whether its server runs or not."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from medperf_contracts.accounts import PASSWORD_LENGTH_LEAST

if TYPE_CHECKING:
    from .operator import Person

_password_option = click.option(
    "--password-stdin", is_flag=True, help="Read the password from the first line of standard input."
)


@click.group()
def user() -> None:
    """Accounts: of the running server, or of a stopped one's store."""


@user.command()
@click.argument("name")
@click.option("--admin", is_flag=True, help="An administrator: approves benchmarks, sees everything.")
@_password_option
def add(name: str, admin: bool, password_stdin: bool) -> None:
    """Make an account."""
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
    click.echo(f"Disabled {name}: their logins are ended; what they are doing now ends within 15 minutes.")


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
    click.echo(f"{name} is an administrator, at the latest in 15 minutes.")


@user.command("set-password")
@click.argument("name")
@_password_option
def set_password(name: str, password_stdin: bool) -> None:
    """Give an account another password, and end its logins."""
    password = _new_password(name, from_stdin=password_stdin)
    _change(name, "set-password", {"password": password})
    click.echo(f"Changed the password of {name}: their logins are ended.")


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
        return sys.stdin.readline().rstrip("\n")
    if not sys.stdin.isatty():
        raise StoreError(
            "There is no terminal to ask for the password.", hint="Give it on standard input: --password-stdin"
        )
    prompt = f"Password for {name} (at least {PASSWORD_LENGTH_LEAST} characters)"
    password: str = click.prompt(prompt, hide_input=True, confirmation_prompt="The same again", err=True)
    return password
