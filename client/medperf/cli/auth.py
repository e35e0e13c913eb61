"""`medperf login`, `logout`, `auth status` and `auth change-password`."""

from __future__ import annotations

import click

from medperf.errors import UsageError
from medperf.terminal import printable

from .listing import silent_yes_option
from .prompts import confirm, has_terminal, piped_password, yes_option
from .session import Session, pass_session
from .tables import json_option, print_view


@click.command()
@click.option("--username", metavar="NAME", help="Who you are; asked for when it is not given.")
@click.option("--password_stdin", is_flag=True, help="Read the password from standard input, for automation.")
@yes_option
@pass_session
def login(session: Session, username: str | None, password_stdin: bool, yes: bool) -> None:
    """Log in to the server.

    The tokens are kept in a file that only you can read, and renewed without asking.
    """
    if password_stdin and username is None:
        raise UsageError("--password_stdin needs --username.", hint="Add --username NAME.")
    if not password_stdin and not has_terminal():
        raise UsageError(
            "There is no terminal to ask for the password.",
            hint="Run it in a terminal, or give --username and --password_stdin.",
        )
    session.begins_anew = True
    gateway = session.gateway  # first: whoever types a password should know where it goes
    name = username or click.prompt("Username", err=True)
    _check_same_person(session, name, yes=yes)
    if password_stdin:
        password = piped_password("password")
    else:
        password = click.prompt("Password", hide_input=True, err=True)
    credentials = gateway.login(name, password)
    click.echo(f"Logged in to {session.server} as {credentials.username}.")


def _check_same_person(session: Session, name: str, *, yes: bool) -> None:
    """Ask before somebody else's login on this machine is replaced."""
    from medperf.credentials import Keyring

    before = Keyring(session.home.credentials).load()
    if before is None or before.username == name:
        return
    click.echo(
        printable(
            f"{before.username} is logged in here. What is kept in {session.home.root} serves you both; each has a"
            " folder of their own with another MEDPERF_HOME."
        ),
        err=True,
    )
    confirm(printable(f"Log in as {name}, in the place of {before.username}?"), yes=yes)


@click.command()
@pass_session
def logout(session: Session) -> None:
    """Log out: the login ends on the server, and its tokens are removed here."""
    from medperf.api import Gateway

    # Without a look at the store: a login to one that is gone can be left as well.
    with Gateway(session.home, network=session.network) as gateway:
        was_logged_in = gateway.logout()
    click.echo(
        f"Logged out of {session.server}." if was_logged_in else f"You were not logged in to {session.server}."
    )


@click.group()
def auth() -> None:
    """Who is logged in."""


@auth.command()
@json_option
@silent_yes_option
@pass_session
def status(session: Session, as_json_text: bool) -> None:
    """Show who is logged in to which server, after asking the server."""
    from medperf_contracts.accounts import UserView

    user = session.gateway.get("/users/me", UserView)
    shown = {
        "server": session.server,
        "username": user.username,
        "user_id": user.id,
        "is_admin": user.is_admin,
        "local_folder": str(session.home.root),
    }
    print_view(shown, as_json_text=as_json_text)


@auth.command("change-password")
@click.option(
    "--password_stdin", is_flag=True, help="Read the old and the new password from standard input, a line each."
)
@silent_yes_option
@pass_session
def change_password(session: Session, password_stdin: bool) -> None:
    """Choose another password. This login goes on; your others, on other machines, are not renewed."""
    from medperf.bodies import checked_input
    from medperf.credentials import Keyring
    from medperf_contracts.accounts import (
        ENDED_GOES_ON_MINUTES,
        PASSWORD_LENGTH_LEAST,
        PasswordChange,
        UserView,
    )

    if not password_stdin and not has_terminal():
        raise UsageError(
            "There is no terminal to ask for the passwords.",
            hint="Run it in a terminal, or give --password_stdin.",
        )
    # Asked first: a login that has ended is renewed before the new password is typed, and not ended by it.
    user = session.gateway.get("/users/me", UserView)
    if password_stdin:
        old, new = piped_password("old password"), piped_password("new password")
    else:
        old = click.prompt(f"Old password of {user.username}", hide_input=True, err=True)
        prompt = f"New password (at least {PASSWORD_LENGTH_LEAST} characters)"
        new = click.prompt(prompt, hide_input=True, confirmation_prompt="The same again", err=True)
    login_now = Keyring(session.home.credentials).load()
    with checked_input():
        body = PasswordChange(
            old_password=old, new_password=new, refresh_token=login_now.refresh_token if login_now else ""
        )
    session.gateway.post("/users/me/password", body)
    click.echo(
        f"Changed the password of {user.username} on {session.server}. No other login of yours is renewed; a"
        f" command in one may go on for up to {ENDED_GOES_ON_MINUTES} minutes."
    )
