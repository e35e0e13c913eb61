"""What the client needs of this machine, its network and the server: looked at, bounded, nothing changed."""

from __future__ import annotations

from collections.abc import Callable

from medperf.home import Home
from medperf.network import Network

from . import machine
from .engines import engine_checks, wanted_platform
from .findings import Check, Examined, Finding, Level, examine
from .server import ServerChecks

__all__ = ["Check", "Examined", "Finding", "Level", "every_check", "examine"]


def every_check(home: Home, network: Callable[[], Network]) -> list[Check]:
    """The checks in the order in which a person would mend what they find.

    `network` is asked for when a check needs it: a CA that cannot be read is a finding as well.
    """
    asked = ServerChecks(home, network)
    return [
        Check("python", machine.python),
        *engine_checks(platform=lambda: wanted_platform(home.root / "preferences.yaml")),
        Check("memory", machine.memory),
        Check("disk of the local folder", lambda: machine.local_disk(home)),
        Check("disk of TMPDIR", machine.temporary_disk),
        Check("local folder", lambda: machine.permissions(home)),
        Check("proxy", asked.proxy),
        Check("certificates", asked.certificates),
        Check("server", asked.server),
        Check("clock", asked.clock),
        Check("login", asked.login),
    ]
