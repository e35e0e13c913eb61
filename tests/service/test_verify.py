"""Every service's copies are compared with their owners, and what differs is said with its reason."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from uuid import uuid4

import pytest

from service.everything import CONSUMERS, REBUILT, Everything
from service.test_rebuild import changed
from services.composition import DEFINITIONS
from services.operations.compare import Difference, Kind
from services.operations.verify import Report, verify

BENCHMARKS = "results.record_benchmark"
SOME_SECONDS = 0.4


def verified(everything: Everything, *, seconds: float = SOME_SECONDS) -> Report:
    return everything.run(verify(everything.databases, DEFINITIONS, settle_seconds=seconds))


def found(report: Report) -> dict[str, list[Difference]]:
    """By consumer, or by kind of thing, what differs."""
    return {each.what: each.differences for each in (*report.owners, *report.copies) if each.differences}


def faults(report: Report) -> list[str]:
    return [*report.log_faults, *(fault for each in report.messages for fault in each.faults)]


def park(everything: Everything, event: Any, state: str) -> None:
    everything.execute(
        "results",
        "INSERT INTO inbox_message VALUES (:consumer, :id, :topic, :envelope, :state, 3, 'why', 1, 1, :next)",
        consumer=BENCHMARKS,
        id=str(event.id),
        topic=event.type,
        envelope=event.model_dump_json(),
        state=state,
        next=99_999_999_999_999,
    )


def known_elsewhere(everything: Everything, event: Any) -> None:
    """Its owner has it, and every consumer but one."""
    everything.execute(
        "registry", "UPDATE benchmarks SET version = :version WHERE id = 1", version=event.aggregateversion
    )
    everything.run(everything.deliver("associations.record_benchmark", event))


def test_services_that_heard_of_everything_agree(everything: Everything) -> None:
    report = verified(everything)
    assert report.agrees
    assert found(report) == {}
    compared = {each.what: each.things for each in (*report.owners, *report.copies)}
    assert compared.keys() == {*REBUILT, "container", "benchmark", "dataset", "association", "result"}
    assert all(compared.values()), "everything was there to be compared"


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        ("DELETE FROM {} WHERE id = 1", Kind.MISSING),
        ("UPDATE {} SET version = 0 WHERE id = 1", Kind.BEHIND),
        ("UPDATE {} SET version = 1000 WHERE id = 1", Kind.AHEAD),
        ("INSERT INTO {0} SELECT {1} FROM {0} WHERE id = 1", Kind.UNKNOWN),
    ],
)
def test_each_copy_that_differs_is_named(everything: Everything, damage: str, kind: Kind) -> None:
    for name, table in REBUILT.items():
        columns = ", ".join("1000" if column.name == "id" else column.name for column in table.columns)
        everything.execute(CONSUMERS[name][0], damage.format(table.name, columns))
    report = verified(everything)
    assert not report.agrees
    named = {what: [(each.kind, each.reason) for each in differing] for what, differing in found(report).items()}
    assert named == {name: [(kind, None)] for name in REBUILT}


def test_each_fact_of_each_copy_is_compared(everything: Everything) -> None:
    columns = {
        name: [column.name for column in table.columns if column.name not in ("id", "version")]
        for name, table in REBUILT.items()
    }
    for name, table in REBUILT.items():
        changes = ", ".join(f"{column} = {another(column)}" for column in columns[name])
        everything.execute(CONSUMERS[name][0], f"UPDATE {table.name} SET {changes} WHERE id = 1")
    differing = found(verified(everything))
    assert {name: [(each.kind, each.fields) for each in differing[name]] for name in differing} == {
        name: [(Kind.DIFFERENT, tuple(columns[name]))] for name in REBUILT
    }


def another(column: str) -> str:
    """Another value than a column has."""
    if column.startswith(("is_", "public_")):
        return f"NOT {column}"
    if column.endswith("_id") or column == "priority":
        return f"{column} + 1"
    return {
        "state": "CASE state WHEN 'OPERATION' THEN 'DEVELOPMENT' ELSE 'PENDING' END",
        "approval": "'PENDING'",
        "part_kind": "CASE part_kind WHEN 'dataset' THEN 'model' ELSE 'dataset' END",
    }.get(column, "'other'")


@pytest.mark.parametrize(
    ("service", "damage", "kind", "difference"),
    [
        ("registry", "UPDATE containers SET name = 'other' WHERE id = 1", "container", Kind.DIFFERENT),
        ("registry", "UPDATE datasets SET version = version + 1 WHERE id = 1", "dataset", Kind.AHEAD),
        ("registry", "DELETE FROM benchmarks WHERE id = 2", "benchmark", Kind.MISSING),
        (
            "associations",
            "UPDATE associations SET state = 'WITHDRAWN' WHERE id = 1",
            "association",
            Kind.DIFFERENT,
        ),
        ("results", "DELETE FROM outbox", "result", Kind.UNKNOWN),
    ],
)
def test_an_owner_that_differs_from_its_own_log_is_named(
    everything: Everything, service: str, damage: str, kind: str, difference: Kind
) -> None:
    everything.execute(service, damage)
    report = verified(everything)
    assert not report.agrees
    assert [each.kind for each in found(report)[kind]] == [difference]


@pytest.mark.parametrize("state", ["waiting", "failed"])
def test_what_is_tried_again_is_the_reason_and_no_fault(everything: Everything, state: str) -> None:
    event = changed(everything)
    everything.record("registry", event)
    known_elsewhere(everything, event)
    park(everything, event, state)
    began = time.monotonic()
    report = verified(everything, seconds=60)
    assert time.monotonic() - began < 30, "for what has a reason nothing is waited"
    assert [(each.kind, each.reason) for each in found(report)[BENCHMARKS]] == [(Kind.BEHIND, state)]
    assert report.agrees, faults(report)


def test_what_is_dead_is_the_reason_and_a_fault(everything: Everything) -> None:
    event = changed(everything)
    everything.record("registry", event)
    known_elsewhere(everything, event)
    park(everything, event, "dead")
    report = verified(everything)
    assert [each.reason for each in found(report)[BENCHMARKS]] == ["dead"]
    assert not report.agrees
    assert "1 dead: see medperf-server dead-letters ls --service results --state dead" in faults(report)


def test_what_was_given_up_is_the_reason_and_no_fault(everything: Everything) -> None:
    event = changed(everything)
    everything.record("registry", event)
    known_elsewhere(everything, event)
    everything.execute(
        "results",
        "INSERT INTO dead_letter_action "
        "(action, event_id, consumer, topic, state, attempts, cause, envelope, done_by, reason, done_millis) "
        "VALUES ('dropped', :id, :consumer, 'a', 'dead', 1, 'a', '{}', 'ada', 'a trial', 1)",
        id=str(event.id),
        consumer=BENCHMARKS,
    )
    report = verified(everything)
    assert [each.reason for each in found(report)[BENCHMARKS]] == ["dropped"]
    assert report.agrees
    assert {each.service: each.dropped for each in report.messages}["results"] == 1


def test_what_has_not_left_is_the_reason(everything: Everything) -> None:
    event = changed(everything)
    everything.record("registry", event, is_sent=False)
    known_elsewhere(everything, event)
    report = verified(everything)
    assert [each.reason for each in found(report)[BENCHMARKS]] == ["not sent"]
    assert faults(report) == ["1 events wait to be sent, and nothing sends them: is its worker (or server) up?"]


def test_what_was_sent_and_never_came_is_a_fault(everything: Everything) -> None:
    event = changed(everything)
    everything.record("registry", event)
    known_elsewhere(everything, event)
    report = verified(everything)
    assert [(each.kind, each.reason) for each in found(report)[BENCHMARKS]] == [(Kind.BEHIND, None)]
    assert not report.agrees


def test_what_comes_in_time_was_on_its_way(everything: Everything) -> None:
    event = changed(everything)
    everything.record("registry", event)
    known_elsewhere(everything, event)

    async def go() -> Report:
        verifying = asyncio.create_task(verify(everything.databases, DEFINITIONS, settle_seconds=60))
        await asyncio.sleep(2)
        assert not verifying.done(), "it waits for what may be on its way"
        await everything.deliver(BENCHMARKS, event)
        return await verifying

    report = everything.run(go())
    assert report.agrees
    assert found(report) == {}


def test_faults_of_the_logs_themselves_are_named(everything: Everything) -> None:
    event = changed(everything, version_ahead=3)
    everything.record("registry", event)
    known_elsewhere(everything, event)
    everything.run(everything.deliver(BENCHMARKS, event))
    lacking = verified(everything).log_faults
    assert lacking == [
        f"no event tells of version {event.aggregateversion - 2} of benchmark/1",
        f"no event tells of version {event.aggregateversion - 1} of benchmark/1",
    ]
    twin = event.model_copy(update={"id": uuid4()})
    everything.record("registry", twin)
    assert f"event {twin.id} tells of a version that another event has too" in verified(everything).log_faults
    everything.execute("registry", "UPDATE outbox SET envelope = '{}' WHERE event_id = :id", id=str(twin.id))
    assert f"event {twin.id} of registry cannot be read" in verified(everything).log_faults
    broken = event.model_copy(update={"id": uuid4(), "aggregateversion": event.aggregateversion + 1, "data": {}})
    everything.record("registry", broken)
    assert f"what event {broken.id} tells of benchmark/1 cannot be read" in verified(everything).log_faults


def test_messages_that_are_due_and_left_lying_are_a_fault(everything: Everything) -> None:
    event = changed(everything)
    park(everything, event, "failed")
    assert verified(everything).agrees
    everything.execute("results", "UPDATE inbox_message SET next_millis = 1")
    report = verified(everything)
    assert not report.agrees
    assert faults(report) == ["1 messages are due, and nothing tries them: is its worker (or server) up?"]


def test_nothing_is_changed_by_comparing(everything: Everything) -> None:
    before = {name: everything.copy_of(name) for name in REBUILT}
    everything.execute("results", "UPDATE benchmark_copies SET version = 0")
    damaged = everything.copy_of(BENCHMARKS)
    verified(everything)
    assert everything.copy_of(BENCHMARKS) == damaged
    assert {name: everything.copy_of(name) for name in REBUILT if name != BENCHMARKS} == {
        name: rows for name, rows in before.items() if name != BENCHMARKS
    }
