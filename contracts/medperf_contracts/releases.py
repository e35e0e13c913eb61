"""What client and server say of themselves to each other, and which of the other each still understands."""

from __future__ import annotations

import re

from . import __version__

CLIENT_HEADER = "Medperf-Client"
SERVER_HEADER = "Medperf-Server"
CLIENT, SERVER = f"medperf/{__version__}", f"medperf-server/{__version__}"
# Raised, each by itself, in the release that stops to understand what is older.
OLDEST_CLIENT = "0.1.0"
OLDEST_SERVER = "0.1.0"

_SAID = re.compile(r"(medperf|medperf-server)/([0-9]{1,6}(?:\.[0-9]{1,6}){2})")


def release_in(header: str | None, product: str) -> str | None:
    """The release that a header such as `medperf/0.1.0` names; None for none, and for another program's."""
    said = _SAID.fullmatch(header or "")
    return said[2] if said is not None and said[1] == product else None


def is_older(release: str, oldest: str) -> bool:
    """Whether a release, such as 0.1.0, came before another."""
    return _parts(release) < _parts(oldest)


def _parts(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("."))
