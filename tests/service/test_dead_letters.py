"""A message that does not get through: an operator sees its cause and its next step, and can have it retried."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from medperf_contracts.envelope import Envelope
from medperf_contracts.events import Event
from service import facts
from service.facts import SITE
from service.peer import OPERATOR_TOKEN, Peer, envelope_of
from service.triggers import NO_ROOM, create_trigger, drop_trigger
from services.associations.app import DEFINITION
from services.kernel import dead_letters, inbox, relay
from services.kernel.bus import EmbeddedBus
from services.kernel.service import Definition

PATH = "/api/v1/dead-letters/associations"
BENCHMARKS = "associations.record_benchmark"


@pytest.fixture
def peer(start: Callable[[Definition], Peer]) -> Peer:
    return start(DEFINITION)


def execute(peer: Peer, statement: str, **values: Any) -> None:
    async def go() -> None:
        async with peer.service.database.write() as session:
            await session.execute(text(statement), values)

    peer.run(go())


def browse(peer: Peer, query: str = "") -> list[dict[str, Any]]:
    answer = peer.call("GET", PATH + query, token=OPERATOR_TOKEN)
    assert answer.status_code == 200, answer.text
    shown: list[dict[str, Any]] = answer.json()["items"]
    return shown


def replay(peer: Peer, *event_ids: str) -> int:
    """As an operator does; without IDs, all. Then the service's own loops do their work once."""
    answer = peer.call("POST", f"{PATH}/replay", {"event_ids": event_ids or None}, token=OPERATOR_TOKEN)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["count"])


def retry(peer: Peer) -> int:
    """What the inbox does by itself, once."""
    return peer.run(peer.service.inbox.retry_due())


def break_benchmarks(peer: Peer) -> None:
    peer.run(create_trigger(peer.service.database, "no_room", "BEFORE INSERT ON benchmark_copies", NO_ROOM))


def mend_benchmarks(peer: Peer) -> None:
    peer.run(drop_trigger(peer.service.database, "no_room"))


def copies(peer: Peer) -> int:
    """How many benchmarks the service has heard of: the effects of the messages here."""

    async def read() -> int:
        async with peer.service.database.read() as session:
            return int((await session.execute(text("SELECT count(*) FROM benchmark_copies"))).scalar_one())

    return peer.run(read())


def let_it_die(peer: Peer, event: Event) -> str:
    """A message that failed as often as it may; its event's ID."""
    break_benchmarks(peer)
    envelope = peer.tell(event)
    execute(peer, f"UPDATE inbox_message SET attempts = {inbox.ATTEMPTS_MOST - 1}, next_millis = 0")
    assert retry(peer) == 1
    mend_benchmarks(peer)
    return str(envelope.id)


# --- on the way in ---


def test_a_message_that_failed_is_shown_with_its_cause_and_its_next_try(peer: Peer) -> None:
    break_benchmarks(peer)
    envelope = peer.tell(facts.benchmark())
    (shown,) = browse(peer)
    since, next_try = (datetime.fromisoformat(shown.pop(name)) for name in ("since", "next_try"))
    assert "no room" in shown.pop("cause")
    assert shown == {
        "event_id": str(envelope.id),
        "consumer": BENCHMARKS,
        "topic": "benchmark.approved.v1",
        "subject": "benchmark/1",
        "state": "failed",
        "attempts": 1,
    }
    assert next_try - since == timedelta(milliseconds=inbox.FIRST_DELAY_MILLIS)


def test_a_message_that_becomes_dead_is_logged_and_says_that_nobody_tries_it_again(peer: Peer) -> None:
    with capture_logs() as lines:
        event_id = let_it_die(peer, facts.benchmark())
    (line,) = [line for line in lines if line["log_level"] == "warning"]
    assert (line["event"], line["consumer"], line["event_id"]) == ("message_dead", BENCHMARKS, event_id)
    assert (line["topic"], line["subject"]) == ("benchmark.approved.v1", "benchmark/1")
    assert "no room" in line["cause"]
    assert event_id in line["next_step"]
    (shown,) = browse(peer)
    assert (shown["state"], shown["next_try"], shown["attempts"]) == ("dead", None, inbox.ATTEMPTS_MOST)


def test_a_replayed_message_has_its_effect_and_is_gone(peer: Peer) -> None:
    event_id = let_it_die(peer, facts.benchmark())
    assert (retry(peer), copies(peer)) == (0, 0)
    assert replay(peer, event_id) == 1
    assert (retry(peer), copies(peer), browse(peer)) == (1, 1, [])


def test_a_replay_that_fails_again_begins_its_attempts_anew(peer: Peer) -> None:
    event_id = let_it_die(peer, facts.benchmark())
    break_benchmarks(peer)
    replay(peer, event_id)
    retry(peer)
    (shown,) = browse(peer)
    assert (shown["state"], shown["attempts"]) == ("failed", 1)


def test_only_the_events_that_are_named_are_replayed_and_without_names_all(peer: Peer) -> None:
    first = let_it_die(peer, facts.benchmark())
    second = let_it_die(peer, facts.benchmark(id=2))
    assert replay(peer, str(uuid4())) == 0
    assert [shown["state"] for shown in browse(peer)] == ["dead", "dead"]
    assert replay(peer, first) == 1
    assert [shown["event_id"] for shown in browse(peer, "?state=dead")] == [second]
    assert [shown["event_id"] for shown in browse(peer, "?state=failed")] == [first]
    assert browse(peer, "?state=waiting") == []
    assert [shown["event_id"] for shown in browse(peer, f"?event_id={second}")] == [second]
    assert replay(peer) == 2
    assert (retry(peer), copies(peer), browse(peer)) == (2, 2, [])


def test_a_long_list_comes_in_pages_that_leave_nothing_out_and_nothing_twice(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "SHOWN_MOST", 2)
    dead = [let_it_die(peer, facts.benchmark(id=number)) for number in range(1, 6)]
    execute(peer, "UPDATE inbox_message SET first_millis = 7")
    pages, cursor = [], ""
    while cursor is not None:
        page = peer.call("GET", f"{PATH}?{cursor}", token=OPERATOR_TOKEN).json()
        assert page["total"] == 5
        pages.append([item["event_id"] for item in page["items"]])
        cursor = page["next_cursor"] and f"cursor={page['next_cursor']}"
    assert pages == [sorted(dead)[:2], sorted(dead)[2:4], sorted(dead)[4:]], "of one moment, by their IDs"
    malformed = peer.call("GET", f"{PATH}?cursor=2", token=OPERATOR_TOKEN)
    assert malformed.status_code == 422


def test_a_message_that_cannot_be_read_is_dead_and_holds_up_no_other(peer: Peer) -> None:
    break_benchmarks(peer)
    unreadable, good = peer.tell(facts.benchmark()), peer.tell(facts.benchmark(id=2))
    mend_benchmarks(peer)
    broken = unreadable.model_dump_json().replace("benchmark/1", "the site's secret")
    execute(
        peer,
        "UPDATE inbox_message SET envelope = :broken, next_millis = -1 WHERE event_id = :id",
        broken=broken,
        id=str(unreadable.id),
    )
    execute(peer, "UPDATE inbox_message SET next_millis = 0 WHERE event_id = :id", id=str(good.id))
    with capture_logs() as lines:
        assert retry(peer) == 2
    assert copies(peer) == 1, "the good one behind it had its effect"
    (shown,) = browse(peer)
    assert (shown["event_id"], shown["state"], shown["consumer"]) == (str(unreadable.id), "dead", BENCHMARKS)
    assert shown["cause"].startswith("the stored event cannot be read: subject: ")
    assert "secret" not in shown["cause"]
    assert [line["event_id"] for line in lines if line["event"] == "message_dead"] == [str(unreadable.id)]
    replay(peer)
    retry(peer)
    assert browse(peer)[0]["state"] == "dead", "as long as it cannot be read"


@pytest.mark.parametrize("stored", ["", "{", "[]", '{"subject": ["a"]}', "[" * 100_000])
def test_a_message_is_shown_whatever_became_of_it(peer: Peer, stored: str) -> None:
    break_benchmarks(peer)
    peer.tell(facts.benchmark())
    execute(peer, "UPDATE inbox_message SET envelope = :stored, next_millis = 0", stored=stored)
    assert retry(peer) == 1
    (shown,) = browse(peer)
    assert (shown["state"], shown["topic"]) == ("dead", "benchmark.approved.v1")


def test_what_an_event_holds_is_not_in_the_cause_of_its_failure(peer: Peer) -> None:
    envelope = envelope_of(facts.benchmark())
    broken = envelope.model_copy(update={"data": envelope.data | {"metrics_hash": "the site's secret"}})
    peer.run(peer.bus.publish([broken]))
    (shown,) = browse(peer)
    assert "metrics_hash" in shown["cause"]
    assert "secret" not in shown["cause"]


# --- given up ---


def drop(peer: Peer, *event_ids: str, reason: str = "test data", **narrowed: str) -> int:
    body = {"event_ids": event_ids, "reason": reason, "by": "ada", **narrowed}
    answer = peer.call("POST", f"{PATH}/drop", body, token=OPERATOR_TOKEN)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["count"])


def story(peer: Peer, event_id: str, query: str = "") -> dict[str, Any]:
    answer = peer.call("GET", f"{PATH}/story?event_id={event_id}{query}", token=OPERATOR_TOKEN)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def test_a_dropped_message_never_has_its_effect_not_even_when_it_comes_again(peer: Peer) -> None:
    break_benchmarks(peer)
    envelope = peer.tell(facts.benchmark())
    mend_benchmarks(peer)
    assert drop(peer, str(envelope.id)) == 1
    assert browse(peer) == []
    peer.run(peer.bus.publish([envelope]))
    execute(peer, "UPDATE inbox_message SET next_millis = 0")
    assert (retry(peer), copies(peer), browse(peer)) == (0, 0, [])


def test_who_dropped_a_message_when_and_why_is_kept_with_what_it_was(peer: Peer) -> None:
    event_id = let_it_die(peer, facts.benchmark())
    drop(peer, event_id, reason="of a trial")
    shown = peer.call("GET", f"{PATH}/dropped", token=OPERATOR_TOKEN).json()
    (kept,) = shown["items"]
    assert (shown["total"], shown["next_cursor"]) == (1, None)
    assert datetime.fromisoformat(kept.pop("at")).year >= 2026
    assert "no room" in kept.pop("cause")
    assert kept == {
        "event_id": event_id,
        "action": "dropped",
        "consumer": BENCHMARKS,
        "topic": "benchmark.approved.v1",
        "subject": "benchmark/1",
        "state": "dead",
        "attempts": inbox.ATTEMPTS_MOST,
        "by": "ada",
        "reason": "of a trial",
    }
    assert story(peer, event_id)["actions"][0]["reason"] == "of a trial"
    assert story(peer, event_id)["handled"] == [], "a claim without an effect"


def test_the_dropped_come_in_pages(peer: Peer) -> None:
    dead = [let_it_die(peer, facts.benchmark(id=number)) for number in (1, 2, 3)]
    drop(peer, *dead)
    first = peer.call("GET", f"{PATH}/dropped?limit=2", token=OPERATOR_TOKEN).json()
    rest = peer.call("GET", f"{PATH}/dropped?limit=2&cursor={first['next_cursor']}", token=OPERATOR_TOKEN).json()
    assert (first["total"], len(first["items"]), len(rest["items"]), rest["next_cursor"]) == (3, 2, 1, None)
    assert {item["event_id"] for item in first["items"] + rest["items"]} == set(dead)


@pytest.mark.parametrize("missing", ["reason", "event_ids"])
def test_nothing_is_dropped_without_a_reason_nor_without_being_named(peer: Peer, missing: str) -> None:
    body: dict[str, Any] = {"event_ids": [let_it_die(peer, facts.benchmark())], "reason": "a test", "by": "ada"}
    del body[missing]
    assert peer.call("POST", f"{PATH}/drop", body, token=OPERATOR_TOKEN).status_code == 422
    empty = body | {"reason": " "}
    assert peer.call("POST", f"{PATH}/drop", empty, token=OPERATOR_TOKEN).status_code == 422
    assert len(browse(peer)) == 1


def test_what_is_given_beside_the_ids_narrows_what_is_dropped(peer: Peer) -> None:
    event_id = let_it_die(peer, facts.benchmark())
    for narrowed in (
        {"consumer": "associations.record_model"},
        {"topic": "benchmark.rejected.v1"},
        {"state": "failed"},
    ):
        assert drop(peer, event_id, **narrowed) == 0
    for query in (f"?consumer={BENCHMARKS}", "?topic=benchmark.approved.v1", "?state=dead"):
        assert len(browse(peer, query)) == 1
    assert browse(peer, "?consumer=associations.record_model") == []
    assert browse(peer, "?topic=benchmark.rejected.v1") == []
    assert drop(peer, event_id, consumer=BENCHMARKS, topic="benchmark.approved.v1", state="dead") == 1


def test_a_message_that_had_its_effect_meanwhile_is_not_counted_as_dropped(peer: Peer) -> None:
    event_id = let_it_die(peer, facts.benchmark())
    execute(peer, "INSERT INTO inbox_claim VALUES (:consumer, :id, 1)", consumer=BENCHMARKS, id=event_id)
    assert drop(peer, event_id) == 0
    assert browse(peer) == []
    assert [handled["consumer"] for handled in story(peer, event_id)["handled"]] == [BENCHMARKS]


def test_a_replay_is_kept_with_its_reason(peer: Peer) -> None:
    event_id = let_it_die(peer, facts.benchmark())
    body = {"event_ids": [event_id], "reason": "more space", "by": "ada"}
    assert peer.call("POST", f"{PATH}/replay", body, token=OPERATOR_TOKEN).json() == {"count": 1}
    retry(peer)
    told = story(peer, event_id)
    assert [(done["action"], done["reason"], done["by"]) for done in told["actions"]] == [
        ("replayed", "more space", "ada")
    ]
    assert [handled["consumer"] for handled in told["handled"]] == [BENCHMARKS]


def test_an_attempt_that_fails_while_its_message_is_given_up_does_not_bring_it_back(peer: Peer) -> None:
    break_benchmarks(peer)
    envelope = peer.tell(facts.benchmark())
    drop(peer, str(envelope.id))
    consumer = next(each for each in DEFINITION.consumers if each.name == BENCHMARKS)
    attempt = peer.service.inbox._write_down(consumer, envelope, "no room", inbox.ATTEMPTS_MOST, counts=True)
    assert peer.run(attempt) == "handled_before"
    assert browse(peer) == []


def test_what_an_event_holds_is_told_only_when_asked(peer: Peer) -> None:
    event_id = let_it_die(peer, facts.benchmark(name="secret name"))
    told = story(peer, event_id)
    assert "secret name" not in str(told)
    envelope = told["envelope"]
    assert (envelope["subject"], envelope["version"], envelope["source"]) == ("benchmark/1", 1, "/medperf/test")
    assert [message["state"] for message in told["messages"]] == ["dead"]
    assert story(peer, event_id, "&data=true")["envelope"]["data"]["name"] == "secret name"
    assert not any(story(peer, str(uuid4())).values())


# --- on the way out ---


class Taking(EmbeddedBus):
    """A bus that notes what it was given, and takes what it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.published: list[UUID] = []
        self.takes = True
        self.fails_with: Exception | None = None

    async def publish(self, envelopes: Sequence[Envelope]) -> set[UUID]:
        if self.fails_with is not None:
            raise self.fails_with
        self.published.extend(envelope.id for envelope in envelopes)
        return {envelope.id for envelope in envelopes} if self.takes else set()


@pytest.fixture
def recorded(peer: Peer) -> Peer:
    """A service with two events waiting in its outbox."""
    peer.tell(facts.benchmark())
    for number in (1, 2):
        peer.tell(facts.dataset(id=number))
        body = {"benchmark_id": 1, "dataset_id": number}
        assert peer.call("POST", "/api/v1/associations", body, by=SITE).status_code == 201
    return peer


def publish(peer: Peer, bus: EmbeddedBus) -> None:
    """What the relay does by itself, once, when each event's time has come."""
    execute(peer, "UPDATE outbox SET not_before_millis = 0")
    peer.run(relay.Relay(peer.service.database, bus).publish_waiting())


def test_an_event_that_cannot_be_read_is_set_aside_with_its_cause_and_the_others_leave(recorded: Peer) -> None:
    unreadable, good = recorded.events()
    execute(recorded, "UPDATE outbox SET envelope = '{}' WHERE event_id = :id", id=str(unreadable.id))
    bus = Taking()
    with capture_logs() as lines:
        publish(recorded, bus)
        publish(recorded, bus)
    assert bus.published == [good.id]
    (shown,) = browse(recorded)
    assert (shown["event_id"], shown["state"], shown["next_try"]) == (str(unreadable.id), "dead", None)
    assert (shown["consumer"], shown["subject"], shown["topic"]) == (None, None, "association.requested.v1")
    assert "id: Field required" in shown["cause"]
    assert [line["event_id"] for line in lines if line["event"] == "message_dead"] == [str(unreadable.id)]
    assert recorded.run(recorded.service.relay.waiting()) == 0


def test_an_event_that_was_set_aside_leaves_after_it_was_mended_and_replayed(recorded: Peer) -> None:
    unreadable, good = recorded.events()
    execute(recorded, "UPDATE outbox SET envelope = '{}' WHERE event_id = :id", id=str(unreadable.id))
    bus = Taking()
    publish(recorded, bus)
    whole = unreadable.model_dump_json()
    execute(
        recorded, "UPDATE outbox SET envelope = :whole WHERE event_id = :id", whole=whole, id=str(unreadable.id)
    )
    assert replay(recorded) == 1
    publish(recorded, bus)
    assert bus.published == [good.id, unreadable.id]
    assert browse(recorded) == []


def test_an_event_that_cannot_be_read_is_given_up_and_stays_in_the_log(recorded: Peer) -> None:
    unreadable, good = recorded.events()
    execute(recorded, "UPDATE outbox SET envelope = '{}' WHERE event_id = :id", id=str(unreadable.id))
    bus = Taking()
    publish(recorded, bus)
    assert drop(recorded, str(unreadable.id)) == 1
    publish(recorded, bus)
    assert bus.published == [good.id]
    assert browse(recorded) == []
    told = story(recorded, str(unreadable.id))
    assert told["envelope"] is None
    assert told["recorded"]["left_at"] is None, "it was not sent"
    assert story(recorded, str(good.id))["recorded"]["left_at"] is not None


def test_an_event_that_only_waits_for_the_bus_is_not_given_up(recorded: Peer) -> None:
    bus = Taking()
    bus.takes = False
    publish(recorded, bus)
    waiting = [str(event.id) for event in recorded.events()]
    assert drop(recorded, *waiting) == 0
    assert [shown["state"] for shown in browse(recorded)] == ["failed"] * 2


@pytest.mark.parametrize(
    ("failure", "cause"),
    [(None, "not every queue"), (OSError("the broker is away"), "OSError: the broker is away")],
)
def test_an_event_that_the_bus_does_not_take_is_shown_until_it_does(
    recorded: Peer, failure: Exception | None, cause: str
) -> None:
    bus = Taking()
    assert browse(recorded) == [], "what was not tried yet is not stuck"
    bus.takes, bus.fails_with = False, failure
    publish(recorded, bus)
    assert [(shown["state"], shown["attempts"]) for shown in browse(recorded)] == [("failed", 1)] * 2
    assert all(cause in shown["cause"] for shown in browse(recorded))
    assert all(shown["next_try"] for shown in browse(recorded))
    bus.takes, bus.fails_with = True, None
    publish(recorded, bus)
    assert browse(recorded) == []


def test_every_service_answers_for_its_own_messages(start: Callable[[Definition], Peer]) -> None:
    from services.composition import DEFINITIONS

    for definition in DEFINITIONS:
        answer = start(definition).call("GET", f"/api/v1/dead-letters/{definition.name}", token=OPERATOR_TOKEN)
        assert (answer.status_code, answer.json()) == (200, {"items": [], "total": 0, "next_cursor": None})
