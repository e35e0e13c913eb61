"""The tokens of one person on one server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from medperf_contracts.accounts import Tokens

from .files import locked, write_atomically
from .home import Home

# Longer than one refresh may take with all its retries, so that a second terminal waits rather than gives up.
_LOCK_WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class Credentials:
    """A login: who, and the tokens that prove it. `expires_at` is in seconds of the local clock."""

    user_id: int
    username: str
    access_token: str
    refresh_token: str
    expires_at: float

    @classmethod
    def received(cls, tokens: Tokens) -> Credentials:
        """What the server answered to a login or a refresh, just now."""
        return cls(
            user_id=tokens.user_id,
            username=tokens.username,
            access_token=tokens.access_token,
            refresh_token=tokens.refresh_token,
            expires_at=time.time() + tokens.expires_in_seconds,
        )


class Keyring:
    """Holds one login: in a file that its owner alone may read, or, without a path, in memory only."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._in_memory: Credentials | None = None

    def load(self) -> Credentials | None:
        """The login as it is now, perhaps renewed by another terminal; None when there is none."""
        if self._path is None:
            return self._in_memory
        try:
            return Credentials(**json.loads(self._path.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            # A file that is damaged or of another version holds no login: the person logs in again.
            return None

    def keep(self, credentials: Credentials) -> None:
        """Replace the login."""
        self._in_memory = credentials
        if self._path is not None:
            write_atomically(self._path, json.dumps(asdict(credentials)) + "\n", mode=0o600)

    def forget(self) -> None:
        """Remove the login."""
        self._in_memory = None
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Let one process at a time renew the login: each renewal uses up the token before it."""
        if self._path is None:
            yield
            return
        with locked(self._path.with_suffix(".lock"), what="the login", wait_seconds=_LOCK_WAIT_SECONDS):
            yield


def logged_in_user(home: Home) -> int | None:
    """The server's ID of the person who is logged in, as far as this machine knows; None when nobody is."""
    kept = Keyring(home.credentials).load()
    return None if kept is None else kept.user_id
