"""What one run of the command works with: the server, the local folder, the gateway."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import urlsplit

import click

from medperf.terminal import printable

if TYPE_CHECKING:
    from medperf.api import Gateway
    from medperf.errors import StoreChanged
    from medperf.folder_lock import FolderLock
    from medperf.home import Home
    from medperf.network import Network
    from medperf_contracts.accounts import ServerView

    from .progress import Progress

P = ParamSpec("P")
R = TypeVar("R")


class Session:
    """One command's server, local folder and gateway, each made when it is first used.

    `yes` is whether the person answered every question beforehand, with `--yes`; `progress` shows the work that
    goes on, if some does; `asks_server` is false for a command that has all it needs on this machine, and
    `begins_anew` true for one that goes on after the old store's folder was set aside.
    """

    def __init__(self) -> None:
        self.server_given: str | None = None
        self.ca_given: str | None = None
        self.allow_http = False
        self.offline_given = False
        self.yes = False
        self.progress: Progress | None = None
        self.asks_server = True
        self.begins_anew = False

    def ask_password(self, username: str) -> str:
        """The password of somebody whose login has ended, perhaps in the middle of long work."""
        from . import prompts

        with self.progress.paused() if self.progress else nullcontext():
            return prompts.ask_password(username)

    @cached_property
    def server(self) -> str:
        """The server's address, normalised; a warning where the way to it can be read."""
        from medperf.home import is_loopback, server_url

        url = server_url(self.server_given, allow_http=self.allow_http)
        parts = urlsplit(url)
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            click.echo(f"Warning: {url} is plain http: your login can be read on the way.", err=True)
        return url

    @cached_property
    def place(self) -> Home:
        """Where the local folder of the server is; to look at, not to work in."""
        from medperf.home import Home

        return Home.at(self.server)

    @cached_property
    def home(self) -> Home:
        """The local folder of the server, which no other command moves or removes before this one has ended."""
        _ = self._lock
        self.place.tidy()
        return self.place

    @cached_property
    def _lock(self) -> FolderLock:
        return click.get_current_context().with_resource(self.place.lock())

    def alone(self) -> AbstractContextManager[None]:
        """Have the local folder alone while the block runs; Busy, naming it, where another command works there."""
        return self._lock.alone()

    @cached_property
    def network(self) -> Network:
        """Whom this machine trusts on the way to the server, and whether plain http may leave it."""
        from medperf.network import Network

        return Network.of(self.place.root, ca=self.ca_given, allow_http=self.allow_http)

    @cached_property
    def gateway(self) -> Gateway:
        """The server, after a look whether it still has the store that the local folder belongs to.

        Where it has another, offers to set the folder aside; StoreChanged where nobody can be asked, and after it
        was set aside in any command but one that begins anew.
        """
        from medperf.api import Gateway
        from medperf.errors import StoreChanged

        from . import prompts

        home = self.home
        home.folder(".")  # before anything is looked for in it: where it cannot be made, that is what is said
        if self.is_offline:
            return self._without_server(home)
        asks = self.ask_password if prompts.has_terminal() else None
        gateway = Gateway(home, network=self.network, ask_login=asks)
        click.get_current_context().call_on_close(gateway.close)
        if not self.asks_server:
            return gateway
        answered = self._answered(gateway)
        try:
            home.check_store(answered)
        except StoreChanged as changed:
            self._make_way(changed, answered)
        self.network.remember(home.root)
        tell_pip(home, self.network)
        return gateway

    @cached_property
    def is_offline(self) -> bool:
        """Whether the server is not asked: its answers are those that bundles brought."""
        from medperf.offline import is_offline

        return is_offline(self.offline_given)

    def check_sends(self) -> None:
        """Raise UsageError where nothing can be sent, before anybody is asked whether it may be."""
        from medperf.offline import nothing_is_sent

        if self.is_offline:
            raise nothing_is_sent()

    def _answered(self, gateway: Gateway) -> ServerView:
        """What the server says of itself; where it is out of reach, a bundle that was imported is spoken of."""
        from medperf.errors import ServerUnreachable

        try:
            return gateway.server()
        except ServerUnreachable as error:
            from medperf.offline import kept_bundle

            if kept_bundle(self.home) is None:
                raise
            way = " Or work from the bundle that was imported here: --offline (MEDPERF_OFFLINE=1)."
            raise ServerUnreachable(str(error), hint=error.hint + way) from error

    def _without_server(self, home: Home) -> Gateway:
        from medperf.offline import offline_gateway, without_index

        gateway = offline_gateway(home, notice=lambda text: click.echo(printable(text), err=True))
        context = click.get_current_context()
        context.call_on_close(gateway.close)
        context.with_resource(without_index())
        return gateway

    def _make_way(self, changed: StoreChanged, answered: ServerView) -> None:
        """Set the old store's folder aside if the person wants it."""
        from medperf.errors import StoreChanged

        from . import prompts

        if not (self.yes or prompts.has_terminal()):
            raise changed
        click.echo(f"{changed}", err=True)
        prompts.confirm("Set the old folder aside and start a new one?", yes=self.yes)
        with self.alone():
            aside = self.home.set_aside()
            self.home.check_store(answered)
        if self.begins_anew:
            click.echo(f"The old folder is now {aside}", err=True)
            return
        # Nothing of what was asked can be done: what the command names, and the login, were the old store's.
        raise StoreChanged(
            f"The old folder is now {aside}, and nothing else was done: datasets, results and login in it are the"
            " old store's.",
            hint="Run `medperf login` to begin with the new one; nothing in the old folder is lost.",
        )


def server_options(command: Callable[P, R]) -> Callable[P, R]:
    """Add `--server`, `--ca`, `--offline`, `--allow_http`, understood before and after the command's name."""
    command = click.option(
        "--allow_http",
        is_flag=True,
        expose_value=False,
        callback=_remember_allow_http,
        help="Let plain http leave this machine, readable to all on the way; else MEDPERF_ALLOW_HTTP=1.",
    )(command)
    command = click.option(
        "--offline",
        is_flag=True,
        expose_value=False,
        callback=_remember_offline,
        help="Ask no server: work from what `medperf bundle import` brought; else MEDPERF_OFFLINE=1.",
    )(command)
    command = click.option(
        "--ca",
        metavar="FILE",
        expose_value=False,
        callback=_remember_ca,
        help="Your site's own CA (PEM), trusted too; else MEDPERF_CA. Remembered for this server once it answers.",
    )(command)
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

    return server_options(update_wrapper(with_session, command))


def _remember_server(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Session).server_given = value


def _remember_ca(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Session).ca_given = value


def _remember_allow_http(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(Session).allow_http = True


def _remember_offline(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(Session).offline_given = True


def tell_pip(home: Home, network: Network) -> None:
    """Have the pip that installs a sandbox's packages trust what this command trusts."""
    from medperf.engines.packages import trust

    trust(home.root / "environments", network.bundle())
