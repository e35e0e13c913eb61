"""What a process of a service is told at its start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """One service's settings. Secrets have no defaults."""

    database_url: str
    signing_key_file: Path
    """The private key of the access tokens: only accounts signs with it; others read the public part."""
    is_embedded: bool
    is_on_loopback: bool
    operator_token_hash: str | None
    """SHA-256, in hex, of the token that an embedded server writes for its operator."""
