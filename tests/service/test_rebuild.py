"""A consumer's copy is made anew from the publishers' logs, while deliveries come."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from medperf_contracts.envelope import Envelope
from service.everything import CONSUMERS, REBUILT, Everything
from services.composition import DEFINITIONS
from services.kernel import copies
from services.kernel.inbox import claim
from services.kernel.tables import inbox_message
from services.operations import logs, rebuild
from services.operations.rebuild import LogWentOn
from services.operator_error import OperatorError

BENCHMARKS = "results.record_benchmark"


def rebuilt(everything: Everything, name: str) -> rebuild.Rebuilt:
    service, consumer = rebuild.rebuildable(DEFINITIONS, name)
    return everything.run(rebuild.rebuild(everything.databases, service, consumer))


def changed(everything: Everything, *, version_ahead: int = 1, **facts: object) -> Envelope:
    """A later event of benchmark 1."""
    last = everything.newest("registry", "benchmark/1")
    return last.model_copy(
        update={
            "id": uuid4(),
            "aggregateversion": last.aggregateversion + version_ahead,
            "data": {**last.data, **facts},
        }
    )


@pytest.mark.parametrize("name", REBUILT)
def test_a_damaged_copy_is_as_the_logs_say_again(everything: Everything, name: str) -> None:
    service, table = CONSUMERS[name][0], REBUILT[name].name
    before, claims = everything.copy_of(name), everything.claims_of(name)
    assert before
    everything.execute(service, f"UPDATE {table} SET version = version + 7")
    everything.execute(service, f"DELETE FROM {table} WHERE id = (SELECT max(id) FROM {table})")
    everything.execute(service, "DELETE FROM inbox_claim WHERE consumer = :name", name=name)
    done = rebuilt(everything, name)
    assert everything.copy_of(name) == before
    assert everything.claims_of(name) == claims
    assert (done.before, done.after, done.events, done.dropped) == (len(before) - 1, len(before), len(claims), 0)


def test_rebuilding_one_copy_leaves_every_other_and_every_claim_alone(everything: Everything) -> None:
    others = [name for name in CONSUMERS if name != BENCHMARKS]
    claims = [everything.claims_of(name) for name in others]
    kept = [everything.copy_of(name) for name in others if name in REBUILT]
    rebuilt(everything, BENCHMARKS)
    assert [everything.claims_of(name) for name in others] == claims
    assert [everything.copy_of(name) for name in others if name in REBUILT] == kept


@pytest.mark.parametrize("name", sorted(CONSUMERS.keys() - REBUILT.keys()))
def test_a_consumer_that_appends_is_not_rebuilt(name: str) -> None:
    with pytest.raises(OperatorError, match="cannot be rebuilt"):
        rebuild.rebuildable(DEFINITIONS, name)


def test_an_unknown_consumer_is_refused_by_naming_those_there_are() -> None:
    with pytest.raises(OperatorError, match="There is no consumer") as refusal:
        rebuild.rebuildable(DEFINITIONS, "results.record")
    assert BENCHMARKS in refusal.value.hint


def test_every_copy_is_rebuilt_by_exactly_one_consumer_and_no_table_of_its_own_is() -> None:
    for definition in DEFINITIONS:
        rebuilt_tables = [each.rebuilds for each in definition.consumers if each.rebuilds is not None]
        assert sorted(table.name for table in rebuilt_tables) == sorted(
            table.name for table in definition.copies.values()
        )
        for consumer in definition.consumers:
            kinds = {event.KIND for event in consumer.events}
            assert consumer.rebuilds is None or [definition.copies[kind] for kind in kinds] == [consumer.rebuilds]
    assert {name for name in CONSUMERS if name not in REBUILT} == {
        name for name in CONSUMERS if name.startswith("notifications.")
    }


def test_what_was_stuck_has_its_effect_and_is_gone(everything: Everything) -> None:
    event = changed(everything, name="renamed")
    everything.record("registry", event)
    everything.execute(
        "results",
        "INSERT INTO inbox_message VALUES (:consumer, :id, :topic, :envelope, 'dead', 12, 'a bug', 1, 1, 1)",
        consumer=BENCHMARKS,
        id=str(event.id),
        topic=event.type,
        envelope=event.model_dump_json(),
    )
    rebuilt(everything, BENCHMARKS)
    assert everything.rows("results", inbox_message) == []
    assert "renamed" in everything.copy_of(BENCHMARKS)[0]


def test_what_was_given_up_stays_so(everything: Everything) -> None:
    event = changed(everything, name="renamed")
    everything.record("registry", event)
    everything.execute(
        "results",
        "INSERT INTO dead_letter_action "
        "(action, event_id, consumer, topic, state, attempts, cause, envelope, done_by, reason, done_millis) "
        "VALUES ('dropped', :id, :consumer, 'a', 'dead', 1, 'a', '{}', 'ada', 'a trial', 1)",
        id=str(event.id),
        consumer=BENCHMARKS,
    )
    before = everything.copy_of(BENCHMARKS)
    assert rebuilt(everything, BENCHMARKS).dropped == 1
    assert everything.copy_of(BENCHMARKS) == before
    everything.run(everything.deliver(BENCHMARKS, event))
    assert everything.copy_of(BENCHMARKS) == before, "a late duplicate does not bring it back"


def test_an_event_that_has_not_left_yet_has_its_effect_once(everything: Everything) -> None:
    event = changed(everything, name="renamed")
    everything.record("registry", event, is_sent=False)
    rebuilt(everything, BENCHMARKS)
    after = everything.copy_of(BENCHMARKS)
    assert "renamed" in after[0]
    assert str(event.id) in everything.claims_of(BENCHMARKS)
    everything.run(everything.deliver(BENCHMARKS, event))
    assert everything.copy_of(BENCHMARKS) == after


def test_a_delivery_after_the_logs_were_read_is_not_lost(everything: Everything) -> None:
    service, consumer = rebuild.rebuildable(DEFINITIONS, BENCHMARKS)
    reading = everything.run(rebuild.read(everything.databases, service, consumer))
    event = changed(everything, name="renamed")
    everything.record("registry", event)
    everything.run(everything.deliver(BENCHMARKS, event))
    before = everything.copy_of(BENCHMARKS)
    with pytest.raises(LogWentOn) as gone_on:
        everything.run(rebuild.replace(everything.databases[service], consumer, reading))
    assert gone_on.value.event_ids == [str(event.id)]
    assert everything.copy_of(BENCHMARKS) == before
    everything.run(
        logs.read_events(everything.databases, gone_on.value.event_ids, reading.log, skip=reading.dropped)
    )
    everything.run(rebuild.replace(everything.databases[service], consumer, reading))
    assert everything.copy_of(BENCHMARKS) == before
    assert "renamed" in before[0]


def test_a_delivery_under_way_is_waited_for(everything: Everything) -> None:
    """Its claim is not seen yet: replaced without waiting, the copy would lack its effect for ever."""
    service, consumer = rebuild.rebuildable(DEFINITIONS, BENCHMARKS)
    event = changed(everything, name="renamed")
    database = everything.databases[service]

    async def go() -> None:
        reading = await rebuild.read(everything.databases, service, consumer)
        async with database.write() as session:
            assert await claim(session, consumer.name, str(event.id))
            replacing = asyncio.create_task(rebuild.replace(database, consumer, reading))
            await asyncio.sleep(0.3)
            assert not replacing.done()
            facts = consumer.event_class(event.type).model_validate(event.data)
            await copies.keep(session, REBUILT[BENCHMARKS], id=1, version=event.aggregateversion, **kept_of(facts))
        with pytest.raises(LogWentOn):
            await replacing

    def kept_of(facts: object) -> dict[str, object]:
        columns = [column.name for column in REBUILT[BENCHMARKS].columns if column.name not in ("id", "version")]
        return {name: getattr(facts, name) for name in columns}

    everything.run(go())
    assert "renamed" in everything.copy_of(BENCHMARKS)[0]


def test_readers_see_the_old_copy_until_the_new_one_is_whole(everything: Everything) -> None:
    service, consumer = rebuild.rebuildable(DEFINITIONS, BENCHMARKS)
    before = everything.copy_of(BENCHMARKS)
    database = everything.databases[service]

    async def go() -> None:
        reading = await rebuild.read(everything.databases, service, consumer)
        seen = set()

        async def look() -> None:
            while True:
                seen.add(await rebuild.count_copies(database, consumer))

        looking = asyncio.create_task(look())
        for _ in range(5):
            await rebuild.replace(database, consumer, reading)
        looking.cancel()
        await asyncio.wait([looking])
        assert seen == {len(before)}

    everything.run(go())


def test_a_log_that_cannot_be_read_changes_nothing(everything: Everything) -> None:
    before = everything.copy_of(BENCHMARKS)
    event = changed(everything)
    everything.record("registry", event)
    for broken in ("{}", event.model_copy(update={"data": {"id": 1}}).model_dump_json()):
        everything.execute(
            "registry",
            "UPDATE outbox SET envelope = :broken WHERE event_id = :id",
            broken=broken,
            id=str(event.id),
        )
        with pytest.raises(OperatorError, match="nothing was changed"):
            rebuilt(everything, BENCHMARKS)
        assert everything.copy_of(BENCHMARKS) == before


def test_an_event_that_no_log_has_stops_it_before_its_effect_is_lost(everything: Everything) -> None:
    service, consumer = rebuild.rebuildable(DEFINITIONS, BENCHMARKS)
    everything.execute(
        "results",
        "INSERT INTO inbox_claim VALUES (:consumer, :id, 99999999999999)",
        consumer=BENCHMARKS,
        id=str(uuid4()),
    )
    before = everything.copy_of(BENCHMARKS)
    with pytest.raises(OperatorError, match="in no service's log"):
        everything.run(rebuild.rebuild(everything.databases, service, consumer))
    assert everything.copy_of(BENCHMARKS) == before
