"""The envelope of an event: CloudEvents 1.0 as structured JSON."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, StringConstraints


class Envelope(BaseModel):
    """One event as it travels: CloudEvents 1.0, with the aggregate's version and room for the W3C trace context.

    `subject` names the thing (`association/7`) and `aggregateversion` its version after the change.
    Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md
    """

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    specversion: Literal["1.0"] = "1.0"
    id: UUID
    source: str
    type: str
    subject: Annotated[str, StringConstraints(pattern=r"^[a-z]+/[0-9]+$")]
    time: AwareDatetime
    datacontenttype: Literal["application/json"] = "application/json"
    aggregateversion: Annotated[int, Field(ge=1)]
    traceparent: str | None = None
    data: dict[str, JsonValue]
