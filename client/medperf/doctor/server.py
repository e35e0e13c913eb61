"""The way to the server, and the server: proxy, certificates, its answer, its clock, the login there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from medperf.api import API, Gateway
from medperf.errors import LoginRequired
from medperf.home import Home
from medperf.network import ENVIRONMENT, REMEMBERED, Network
from medperf.proxies import Proxy, no_proxy, proxy_for
from medperf.wire import Request, Wire, refusal
from medperf_contracts.accounts import ServerView, UserView

from .findings import Finding, Level
from .machine import client_version

# Login tokens last minutes; a clock that is off by more makes them look expired, and times in results wrong.
_CLOCK_SECONDS = 60.0
_BOUND_SECONDS = 5.0
_ANYWHERE = "https://elsewhere.invalid"
_UNKNOWN = Finding(Level.WARNING, "not known: the server did not answer", "Mend what stands at `server` first.")


class ServerChecks:
    """Checks that share one answer of the server: it is asked for itself once, and for the login once."""

    def __init__(self, home: Home, network: Callable[[], Network]) -> None:
        self._home = home
        self._network = network
        self._answered: ServerView | None = None
        # The server's clock minus ours.
        self._ahead_seconds = 0.0

    def proxy(self) -> Finding:
        """Which proxies the settings name, for the server and for others."""
        server, others = proxy_for(self._home.server), proxy_for(_ANYWHERE)
        exceptions = f"; NO_PROXY: {no_proxy()}" if no_proxy() else ""
        found = f"{self._home.server} is reached {_way(server)}, others by https {_way(others)}{exceptions}"
        return Finding(Level.OK, found)

    def certificates(self) -> Finding:
        """Whose certificates are trusted."""
        ca = self._network().ca
        found = "the system's store and the public authorities"
        if ca is not None:
            source = {ENVIRONMENT: ENVIRONMENT, REMEMBERED: "remembered from --ca"}.get(ca.source, ca.source)
            found += f", and {ca.file} ({source})"
        for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
            named = os.environ.get(name)
            if named and not all(Path(part).exists() for part in named.split(os.pathsep)):
                return Finding(
                    Level.WARNING, f"{name} names {named}, which is not there", f"Set {name} anew, or unset it."
                )
        return Finding(Level.OK, found)

    def server(self) -> Finding:
        """Whether the server answers, with the store that the local folder belongs to, and in which version."""
        wire = Wire(
            self._home.server,
            network=self._network(),
            transport=None,
            bound_seconds=_BOUND_SECONDS,
            notice=lambda _: None,
        )
        try:
            began = time.time()
            answer = wire.ask(Request("GET", f"{API}/server", {}, {}))
            ended = time.time()
        finally:
            wire.close()
        if not answer.is_success:
            raise refusal(answer, self._home.server)
        try:
            view = ServerView.model_validate_json(answer.content)
        except ValueError:
            advice = "Check the address (--server, MEDPERF_SERVER)."
            return Finding(Level.PROBLEM, f"{self._home.server} answers, and not as a MedPerf server does", advice)
        self._answered = view
        self._ahead_seconds = view.time.timestamp() - (began + ended) / 2
        kept = self._home.root / "store"
        if kept.exists() and kept.read_text().strip() != str(view.store_id):
            advice = "If it was reset on purpose, `medperf login --yes` sets the old folder aside; if not, ask."
            return Finding(Level.PROBLEM, f"{self._home.server} answers with another store than before", advice)
        return self._of_version(view.version)

    def clock(self) -> Finding:
        """This machine's clock against the server's."""
        if self._answered is None:
            return _UNKNOWN
        off = abs(self._ahead_seconds)
        if off < _CLOCK_SECONDS:
            return Finding(Level.OK, f"within {max(1, round(off))} s of the server's")
        way = "behind" if self._ahead_seconds > 0 else "ahead of"
        advice = (
            "Set this machine's clock (NTP), or tell the server's operator: logins end early, and times are wrong."
        )
        return Finding(Level.WARNING, f"{off:,.0f} s {way} the server's", advice)

    def login(self) -> Finding:
        """Who is logged in, after asking the server."""
        if not (self._home.root / "credentials.json").exists():
            return Finding(Level.PROBLEM, "nobody is logged in here", "Run `medperf login`.")
        if self._answered is None:
            return _UNKNOWN
        with Gateway(
            self._home, network=self._network(), bound_seconds=_BOUND_SECONDS, notice=lambda _: None
        ) as gateway:
            try:
                user = gateway.get("/users/me", UserView)
            except LoginRequired as error:
                return Finding(Level.PROBLEM, str(error), "Run `medperf login`.")
        return Finding(Level.OK, f"{user.username}, and the server accepts it")

    def _of_version(self, version: str) -> Finding:
        found = f"{self._home.server} answers, version {version}"
        if version == client_version():
            return Finding(Level.OK, found)
        advice = "Install the client of the server's version, or ask its operator which one fits."
        return Finding(Level.WARNING, f"{found}; this client has {client_version()}", advice)


def _way(proxy: Proxy | None) -> str:
    if proxy is None:
        return "directly"
    return f"through the proxy {proxy}" + (" with a name and password" if proxy.has_credentials else "")
