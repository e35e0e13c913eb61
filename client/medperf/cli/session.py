"""What one run of the command works with: the server, the local folder, the gateway."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import cached_property, update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

if TYPE_CHECKING:
    from medperf.api import Gateway
    from medperf.home import Home

    from .progress import Progress

P = ParamSpec("P")
R = TypeVar("R")


class Session:
    """One command's server, local folder and gateway, each made when it is first used.

    `yes` is whether the person answered every question beforehand, with `--yes`; `progress` shows the work that
    goes on, if some does.
    """

    def __init__(self) -> None:
        self.server_given: str | None = None
        self.yes = False
        self.progress: Progress | None = None

    def ask_password(self, username: str) -> str:
        """The password of somebody whose login has ended, perhaps in the middle of long work."""
        from . import prompts

        with self.progress.paused() if self.progress else nullcontext():
            return prompts.ask_password(username)

    @cached_property
    def server(self) -> str:
        """The server's address, normalised."""
        from medperf.home import server_url

        return server_url(self.server_given)

    @cached_property
    def home(self) -> Home:
        """The local folder that belongs to the server."""
        from medperf.home import Home

        return Home.at(self.server)

    @cached_property
    def gateway(self) -> Gateway:
        """The server, after a look whether it still has the store that the local folder belongs to.

        Where it has another, offers to set the folder aside; StoreChanged where nobody can be asked.
        """
        from medperf.api import Gateway
        from medperf.errors import StoreChanged

        from . import prompts

        home = self.home
        gateway = Gateway(home, ask_login=self.ask_password if prompts.has_terminal() else None)
        click.get_current_context().call_on_close(gateway.close)
        answered = gateway.server()
        try:
            home.check_store(answered)
        except StoreChanged as error:
            if not (self.yes or prompts.has_terminal()):
                raise
            click.echo(f"{error}", err=True)
            prompts.confirm("Set the old folder aside and start a new one?", yes=self.yes)
            click.echo(f"The old folder is now {home.set_aside()}", err=True)
            home.check_store(answered)
        return gateway


def server_option(command: Callable[P, R]) -> Callable[P, R]:
    """Add `--server`, which is understood before and after the command's name."""
    return click.option(
        "--server",
        metavar="URL",
        expose_value=False,
        callback=_remember_server,
        help="The MedPerf server; else MEDPERF_SERVER, else http://localhost:8000.",
    )(command)


def pass_session(command: Callable[Concatenate[Session, P], R]) -> Callable[P, R]:
    """Call a command with the session as its first argument."""

    def with_session(*args: Any, **kwargs: Any) -> R:
        return command(click.get_current_context().ensure_object(Session), *args, **kwargs)

    return server_option(update_wrapper(with_session, command))


def _remember_server(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Session).server_given = value
