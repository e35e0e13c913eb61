"""The versions of things that the server has shown, so that the next request can say what it builds on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from medperf_contracts.versions import SEEN_MOST, ThingVersion

from .errors import Busy
from .files import locked, write_atomically

# A service's copy that is still behind after so long is a fault to be seen, not one to be waited for.
KEPT_SECONDS = 600.0
# A person's lists are short; a script's must not make each command read a large file.
_KEPT_MOST = 1000
_LOCK_WAIT_SECONDS = 10.0


class Seen:
    """The versions seen in the last ten minutes, in one small file that all commands of a server share."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self, things: Iterable[ThingVersion]) -> None:
        """Remember what an answer showed; an older version never replaces a newer one.

        The answer has been given: that these notes cannot be written (a full disk, another command that was halted
        while it wrote) must not make it a failure, and costs no more than a moment's freshness.
        """
        fresh = list(things)
        if fresh:
            with suppress(OSError, Busy):
                self._merge(fresh)

    def _merge(self, fresh: list[ThingVersion]) -> None:
        with locked(self._path.with_suffix(".lock"), what="the list of versions", wait_seconds=_LOCK_WAIT_SECONDS):
            known = self._load()
            now = time.time()
            for thing in fresh:
                name = f"{thing.kind}/{thing.id}"
                newest = max(thing.version, known.get(name, (0, now))[0])
                known.pop(name, None)
                known[name] = (newest, now)
            kept = list(known.items())[-_KEPT_MOST:]
            write_atomically(self._path, json.dumps(dict(kept)) + "\n")

    def header(self, names: Iterable[str]) -> str:
        """The versions known of things such as `benchmark/1`, for `Medperf-Seen`; empty when none is known."""
        known = self._load()
        versions = [f"{name}@{known[name][0]}" for name in dict.fromkeys(names) if name in known]
        return ", ".join(versions[:SEEN_MOST])

    def _load(self) -> dict[str, tuple[int, float]]:
        try:
            rows = json.loads(self._path.read_text())
            known = {str(name): (int(version), float(when)) for name, (version, when) in rows.items()}
        except (FileNotFoundError, ValueError, TypeError, AttributeError):
            # Damaged notes cost a moment's freshness, nothing else.
            return {}
        now = time.time()
        # abs(): after the clock was set back, a note from the future would otherwise never age.
        return {name: entry for name, entry in known.items() if abs(now - entry[1]) < KEPT_SECONDS}
