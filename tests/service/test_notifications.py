"""Notifications: events in, sentences out."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError

from medperf_contracts.associations import AssociationState, PartKind
from medperf_contracts.events import (
    AssociationPrioritized,
    AssociationRequested,
    AssociationWithdrawn,
    BenchmarkRejected,
    ResultSubmitted,
)
from service import facts
from service.facts import ADMIN, COMMITTEE, MODEL_OWNER, SITE, STRANGER
from service.peer import Peer, envelope_of
from services.kernel.service import Definition
from services.kernel.tables import KERNEL
from services.notifications.app import DEFINITION
from services.notifications.consumers import CONSUMERS
from services.notifications.tables import metadata, notifications

PATH = "/api/v1/notifications"
REQUESTED = AssociationRequested.model_validate(
    facts.association().model_dump() | {"state": AssociationState.PENDING, "decided_by": None}
)
WITHDRAWN = AssociationWithdrawn.model_validate(
    facts.association().model_dump() | {"state": AssociationState.WITHDRAWN, "decided_by": SITE}
)
SUBMITTED = ResultSubmitted(
    id=3,
    benchmark_id=1,
    benchmark_name="chest",
    benchmark_owner_id=COMMITTEE,
    model_id=4,
    model_name="second",
    model_owner_id=MODEL_OWNER,
    dataset_id=1,
    dataset_owner_id=SITE,
    is_partial=False,
)


@pytest.fixture
def peer(start: Callable[[Definition], Peer]) -> Peer:
    return start(DEFINITION)


def told(peer: Peer, user: int, query: str = "") -> list[dict[str, Any]]:
    response = peer.call("GET", f"{PATH}{query}", by=user)
    assert response.status_code == 200, response.text
    items: list[dict[str, Any]] = response.json()["items"]
    return items


def test_a_request_reaches_the_benchmarks_owner_and_nobody_else(peer: Peer) -> None:
    envelope = peer.tell(REQUESTED)
    (item,) = told(peer, COMMITTEE)
    assert item.pop("created_at")
    assert item == {
        "id": 1,
        "version": 1,
        "user_id": COMMITTEE,
        "topic": envelope.type,
        "about": "association/1",
        "text": "Dataset 'mydata' (1) asks to join your benchmark 'chest' (1). "
        "Decide with: medperf association approve --benchmark_uid 1 --data_uid 1",
        "is_read": False,
    }
    for user in (SITE, MODEL_OWNER, STRANGER):
        assert told(peer, user) == []
    assert peer.call("GET", PATH, by=ADMIN, admin=True).json()["items"] == []


def test_every_event_that_concerns_a_person_is_told_once(peer: Peer) -> None:
    peer.tell(REQUESTED, version=1)
    peer.tell(facts.association(), version=2)
    peer.tell(WITHDRAWN, version=3)
    peer.tell(facts.benchmark(), version=3)
    peer.tell(BenchmarkRejected.model_validate(facts.benchmark(id=2).model_dump()), version=3)
    peer.tell(SUBMITTED)
    assert [(item["topic"], item["about"]) for item in told(peer, COMMITTEE)] == [
        ("association.requested.v1", "association/1"),
        ("association.withdrawn.v1", "association/1"),
        ("benchmark.approved.v1", "benchmark/1"),
        ("benchmark.rejected.v1", "benchmark/2"),
        ("result.submitted.v1", "result/3"),
    ]
    assert [item["topic"] for item in told(peer, SITE)] == ["association.approved.v1"]
    assert [item["topic"] for item in told(peer, MODEL_OWNER)] == ["result.submitted.v1"]


def test_the_model_owner_learns_neither_dataset_nor_site(peer: Peer) -> None:
    peer.tell(SUBMITTED.model_copy(update={"dataset_id": 8642, "dataset_owner_id": 9753}))
    (item,) = told(peer, MODEL_OWNER)
    assert "8642" not in str(item)
    assert "9753" not in str(item)
    assert "on dataset 8642" in told(peer, COMMITTEE)[0]["text"]


def test_a_delivery_that_comes_twice_is_told_once(peer: Peer) -> None:
    event_id = uuid.uuid4()
    for _ in range(3):
        peer.tell(REQUESTED, event_id=event_id)
    assert len(told(peer, COMMITTEE)) == 1
    assert peer.parked() == []


def test_an_event_is_told_even_where_a_later_version_came_first(peer: Peer) -> None:
    peer.tell(WITHDRAWN, version=3)
    peer.tell(REQUESTED, version=1)
    assert [item["topic"] for item in told(peer, COMMITTEE)] == [
        "association.withdrawn.v1",
        "association.requested.v1",
    ]


def test_nobody_is_told_of_a_priority(peer: Peer) -> None:
    """A committee that puts its models in an order changes many at once; whoever runs them is shown the order."""
    model = {"part_kind": PartKind.MODEL, "part_id": 4, "part_owner_id": MODEL_OWNER, "priority": 5}
    peer.tell(AssociationPrioritized.model_validate(facts.association(**model).model_dump()), version=3)
    assert [told(peer, user) for user in (COMMITTEE, MODEL_OWNER, SITE)] == [[], [], []]
    assert peer.parked() == []


def test_one_person_is_never_told_twice_of_one_event(peer: Peer) -> None:
    peer.tell(REQUESTED)

    async def tell_again() -> None:
        async with peer.service.database.write() as session:
            row = dict((await session.execute(select(notifications))).mappings().one())
            del row["id"]
            await session.execute(insert(notifications).values(**row))

    with pytest.raises(IntegrityError, match=r"(?i)unique"):
        peer.run(tell_again())


def test_each_told_notification_is_one_log_line_without_its_sentence(peer: Peer) -> None:
    with structlog.testing.capture_logs() as lines:
        peer.tell(SUBMITTED)
    logged = [line for line in lines if line["event"] == "told"]
    assert {line["user_id"] for line in logged} == {COMMITTEE, MODEL_OWNER}
    assert {line["about"] for line in logged} == {"result/3"}
    assert "chest" not in str(lines)


def test_reading_marks_it_once_and_again_changes_nothing(peer: Peer) -> None:
    peer.tell(REQUESTED)
    peer.tell(SUBMITTED)
    first = peer.call("POST", f"{PATH}/1/read", by=COMMITTEE)
    assert (first.status_code, first.json()["is_read"]) == (200, True)
    assert first.headers["Medperf-Version"] == "notification/1@2"
    again = peer.call("POST", f"{PATH}/1/read", by=COMMITTEE)
    assert (again.status_code, again.json()) == (200, first.json())
    assert [item["id"] for item in told(peer, COMMITTEE, "?unread=true")] == [3]
    assert [item["id"] for item in told(peer, COMMITTEE)] == [1, 3]


def test_looking_at_a_notification_leaves_it_unread_and_only_its_reader_can(peer: Peer) -> None:
    peer.tell(REQUESTED)
    seen = peer.call("GET", f"{PATH}/1", by=COMMITTEE)
    assert (seen.status_code, seen.json()["is_read"]) == (200, False)
    assert seen.headers["Medperf-Version"] == "notification/1@1"
    assert told(peer, COMMITTEE, "?unread=true") == [seen.json()]
    for user in (SITE, STRANGER):
        assert peer.call("GET", f"{PATH}/1", by=user).status_code == 404
    assert peer.call("GET", f"{PATH}/1", by=ADMIN, admin=True).status_code == 403


def test_only_its_reader_marks_a_notification(peer: Peer) -> None:
    peer.tell(REQUESTED)
    for user in (SITE, STRANGER):
        hidden = peer.call("POST", f"{PATH}/1/read", by=user)
        missing = peer.call("POST", f"{PATH}/77/read", by=user)
        assert (hidden.status_code, hidden.json()["code"]) == (404, missing.json()["code"])
    assert peer.call("POST", f"{PATH}/1/read", by=ADMIN, admin=True).status_code == 403
    assert peer.call("POST", f"{PATH}/1/read").status_code == 401
    assert peer.call("GET", PATH).status_code == 401
    assert told(peer, COMMITTEE)[0]["is_read"] is False


def test_the_list_is_paged(peer: Peer) -> None:
    for number in (1, 2, 3):
        peer.tell(REQUESTED.model_copy(update={"id": number}))
    first = peer.call("GET", f"{PATH}?limit=2", by=COMMITTEE).json()
    assert [item["about"] for item in first["items"]] == ["association/1", "association/2"]
    rest = peer.call("GET", f"{PATH}?limit=2&cursor={first['next_cursor']}", by=COMMITTEE).json()
    assert ([item["about"] for item in rest["items"]], rest["next_cursor"]) == (["association/3"], None)


def test_what_it_consumes_are_queues_by_these_names_and_what_tells_nobody_is_not_among_it() -> None:
    topics = {consumer.name: {event.TOPIC for event in consumer.events} for consumer in CONSUMERS}
    assert topics == {
        "notifications.tell_of_association": {
            "association.requested.v1",
            "association.approved.v1",
            "association.rejected.v1",
            "association.withdrawn.v1",
        },
        "notifications.tell_of_benchmark": {"benchmark.approved.v1", "benchmark.rejected.v1"},
        "notifications.tell_of_result": {"result.submitted.v1"},
    }


def test_an_event_of_something_else_tells_nobody(peer: Peer) -> None:
    envelopes = [envelope_of(facts.dataset()), envelope_of(facts.container())]
    assert len(peer.run(peer.bus.publish(envelopes))) == 2
    assert (told(peer, SITE), told(peer, MODEL_OWNER), peer.parked()) == ([], [], [])


def test_the_migrations_make_what_the_tables_say(peer: Peer) -> None:
    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, [KERNEL, metadata]))

    async def compare() -> list[Any]:
        async with peer.service.database.engine.connect() as connection:
            return await connection.run_sync(differences)

    assert peer.run(compare()) == []
