"""What a person decided once for a server's local folder, so that no command has to ask or be told again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from medperf import safe_yaml
from medperf.errors import IntegrityError, UsageError
from medperf.files import write_atomically

PLATFORMS = ("auto", "docker", "podman", "apptainer", "sandbox")
# What else a platform is called, by people and by commands that they have written down.
OTHER_NAMES = {"singularity": "apptainer"}


def platform_of_environment() -> str | None:
    """The platform that `MEDPERF_PLATFORM` names: for this environment, so that it is not remembered."""
    named = os.environ.get("MEDPERF_PLATFORM")
    if named and named not in (*PLATFORMS, *OTHER_NAMES):
        raise UsageError(
            f"MEDPERF_PLATFORM is {named!r}, which is no platform.",
            hint=f"Set it to {', '.join(PLATFORMS)}, or unset it.",
        )
    return OTHER_NAMES.get(named, named) if named else None


class Preferences(BaseModel):
    """Kept in `preferences.yaml`; a file that cannot be read holds none, and the person is asked anew."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    platform: Literal["auto", "docker", "podman", "apptainer", "sandbox"] = "auto"
    has_agreed_to_sandbox: bool = False

    @classmethod
    def load(cls, file: Path) -> Preferences:
        """What was decided, or the defaults."""
        try:
            return cls.model_validate(safe_yaml.load(file.read_bytes(), what=str(file), error=IntegrityError))
        except (FileNotFoundError, IntegrityError, ValidationError):
            return cls()

    def save(self, file: Path) -> None:
        """Write them, whole or not at all."""
        write_atomically(file, safe_yaml.dump(self.model_dump()))
