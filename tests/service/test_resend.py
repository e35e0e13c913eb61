"""Events are sent again after a restore: those of the last hours, and none that a person gave up."""

from __future__ import annotations

from typing import Any

from service.everything import Everything
from services.kernel.tables import outbox
from services.operations.resend import resend

HOUR_MILLIS = 3_600_000


def events(everything: Everything) -> list[dict[str, Any]]:
    """The registry's log."""
    names = [column.name for column in outbox.columns]
    return [dict(zip(names, row, strict=True)) for row in everything.rows("registry", outbox)]


def test_what_was_sent_in_the_last_hours_waits_to_be_sent_again(everything: Everything) -> None:
    everything.execute(
        "registry",
        "UPDATE outbox SET sent_millis = recorded_millis, attempts = 3, not_before_millis = 9000000000000",
    )
    everything.execute(
        "registry", f"UPDATE outbox SET recorded_millis = recorded_millis - {3 * HOUR_MILLIS} WHERE position > 3"
    )
    counts = everything.run(resend(everything.databases, hours=2))
    again = [event for event in events(everything) if event["sent_millis"] is None]
    assert [event["position"] for event in again] == [1, 2, 3]
    assert counts["registry"] == 3
    assert {(event["attempts"], event["not_before_millis"]) for event in again} == {(0, 0)}, "as a new event is"


def test_what_was_given_up_stays_given_up(everything: Everything) -> None:
    everything.execute("registry", "UPDATE outbox SET sent_millis = 1, buried_millis = 1 WHERE position = 1")
    everything.run(resend(everything.databases, hours=600))
    first, second = events(everything)[:2]
    assert (first["position"], first["sent_millis"]) == (1, 1)
    assert second["sent_millis"] is None
