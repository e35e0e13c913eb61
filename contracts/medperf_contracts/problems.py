"""Problem details for HTTP APIs (RFC 9457), as every service answers an error."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """An error: a stable `code` for programs, `detail` for people, and what to do next in `hint`."""

    model_config = ConfigDict(extra="ignore")

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str
    hint: str = ""
    existing: str | None = Field(None, description="The thing that is there already, as kind/ID")
    fields: list[dict[str, Any]] = Field(default_factory=list, description="For invalid input: each field and why")
