"""What is to be sent, as a file to carry from a site without internet to a machine that reaches the server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from medperf import safe_yaml
from medperf.errors import IntegrityError, UsageError
from medperf.files import write_atomically
from medperf_contracts.hashing import text_hash
from medperf_contracts.registry import NewDataset
from medperf_contracts.results import NewResult
from medperf_contracts.values import Id, Instant

# A body is at most 1 MiB, and a benchmark has some dozens of models.
_BYTES_MOST = 64 * 1024**2
_HEAD = """\
# Written by MedPerf, to be carried to a machine that reaches the server. Read it: nothing else leaves with it.
# There, logged in as the data's owner: medperf {noun} submit --from FILE
"""


class TakingPart(BaseModel):
    """A request to take part in a benchmark: what the compatibility test gave."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    benchmark_id: Id
    summary: dict[str, JsonValue]


class Carried(BaseModel):
    """Bodies of one server's store as they would have been sent: a dataset with a request, or results."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format: Literal[1] = 1
    server: str
    store_id: UUID
    written_at: Instant
    dataset: NewDataset | None = None
    taking_part: TakingPart | None = None
    results: tuple[NewResult, ...] = Field((), max_length=10_000)

    def write(self, file: Path) -> None:
        """Write it whole or not at all, as YAML with the SHA-256 of what it says."""
        content = self._content()
        noun = "dataset" if self.dataset is not None else "result"
        text = safe_yaml.dump({**content, "sha256": _hash(content)})
        write_atomically(file, _HEAD.format(noun=noun) + text, mode=0o644)

    @classmethod
    def read(cls, file: Path) -> Self:
        """What a file holds; UsageError where it is none of these, IntegrityError where it was altered."""
        try:
            content = file.read_bytes()
        except OSError as error:
            raise UsageError(
                f"{file} cannot be read: {error.strerror}.", hint="Give the file that was carried here."
            ) from error
        found = safe_yaml.load(content, what=str(file), limit_bytes=_BYTES_MOST, error=UsageError)
        hashed = found.pop("sha256", None) if isinstance(found, dict) else None
        try:
            carried = cls.model_validate(found)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise UsageError(
                f"{file} is not what `medperf result export` or `medperf dataset export` writes: {where}"
                f" {first['msg']}.",
                hint="Give the file as it was written at the site.",
            ) from error
        if hashed != _hash(carried._content()):
            raise IntegrityError(
                f"{file} was altered after it was written.",
                hint="What was shown at the site is what is sent: write it there anew, and carry that.",
            )
        return carried

    def _content(self) -> dict[str, Any]:
        """What is written; only what was given, so that it is read back as it was."""
        whole: dict[str, Any] = self.model_dump(mode="json", exclude={"dataset", "taking_part", "results"})
        if self.dataset is not None:
            whole["dataset"] = self.dataset.as_sent()
        if self.taking_part is not None:
            whole["taking_part"] = self.taking_part.model_dump(mode="json")
        if self.results:
            whole["results"] = [result.as_sent() for result in self.results]
        return whole


def _hash(content: dict[str, Any]) -> str:
    return text_hash(json.dumps(content, sort_keys=True, separators=(",", ":")))
