"""The small values that bodies and events are made of, each with its bounds."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

# Control characters can paint a terminal or break a log line; a newline is allowed in prose only.
# In a name also what has no width and no meaning: two names that look alike must not differ. U+200C and U+200D are
# letters' company in several scripts.
_CONTROL = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
CONTROL_BUT_NEWLINE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def _one_line(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("must be one line without control or invisible characters")
    return text


def _prose(text: str) -> str:
    if CONTROL_BUT_NEWLINE.search(text):
        raise ValueError("must not hold control characters")
    return text


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a time between the years 1 and 9999 in UTC") from None


def _relative_or_http(url: str) -> str:
    if not re.match(r"(https?://[^\s/?#@]+(/[^\s]*)?|/[^\s/][^\s]*)\Z", url):
        raise ValueError(
            "must be http://…, https://… without a user name, or a path of the gateway such as /assets/…"
        )
    return url


Id = Annotated[int, Field(ge=1, le=2**63 - 1)]
Version = Annotated[int, Field(ge=1, le=2**63 - 1)]
Name = Annotated[
    str, StringConstraints(min_length=1, max_length=128, strip_whitespace=True), AfterValidator(_one_line)
]
Line = Annotated[str, StringConstraints(max_length=256, strip_whitespace=True), AfterValidator(_one_line)]
Prose = Annotated[str, StringConstraints(max_length=4096), AfterValidator(_prose)]
Document = Annotated[str, StringConstraints(min_length=1, max_length=128 * 1024), AfterValidator(_prose)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Blake3 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
GeneratedUid = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
Url = Annotated[
    str,
    StringConstraints(min_length=1, max_length=2048),
    AfterValidator(_one_line),
    AfterValidator(_relative_or_http),
]
Username = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$")]


class Body(BaseModel):
    """A request's body: unknown fields are refused, so that a misspelt one is never silently dropped."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def as_sent(self) -> dict[str, Any]:
        """What travels: the fields that were given, and no others."""
        return self.model_dump(mode="json", exclude_unset=True)


class Changes(Body):
    """What is to change: a field that is left out stays as it is, `null` clears one of `CLEARABLE`."""

    CLEARABLE: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="after")
    def _null_clears_only_what_may_be_empty(self) -> Self:
        for name in sorted(self.model_fields_set - self.CLEARABLE):
            if getattr(self, name) is None:
                raise ValueError(f"{name} cannot be null; leave it out to keep it as it is")
        return self


class View(BaseModel):
    """An answer. Readers ignore fields they do not know, so that a field can be added."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class ThingView(View):
    """An answer about one thing, with the version that `Medperf-Version` names."""

    id: Id
    version: Version


class State(StrEnum):
    """DEVELOPMENT: its owner tries it out; OPERATION: others may use it. What it means changes in neither.

    Hashes and parts are fixed at registration; texts, URLs and the validity flag may change.
    """

    DEVELOPMENT = "DEVELOPMENT"
    OPERATION = "OPERATION"


class Decision(StrEnum):
    """What was decided of a request, or that nothing was yet."""

    PENDING = "PENDING"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"


# Kept in UTC: a time of the year 1 or 9999 with an offset could be stored, but never be read again.
Instant = Annotated[AwareDatetime, AfterValidator(_in_utc)]
