"""What a process of a service is told at its start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL


@dataclass(frozen=True)
class Settings:
    """One service's settings. Secrets have no defaults."""

    database_url: str | URL
    signing_keys_file: Path
    """The private keys of the access tokens; only accounts reads them, and signs with the first."""
    public_keys_file: Path
    """The keys by which logins are known; a file with the private ones will do, where one process has both."""
    is_embedded: bool
    is_on_loopback: bool
    operator_token_hash: str | None
    """SHA-256, in hex, of the token by which an operator's command proves itself to this process."""
