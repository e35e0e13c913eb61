"""What a process shows on its monitor's port: each number moves with what it counts, and none lies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncSession

from medperf_contracts.envelope import Envelope
from medperf_contracts.events import DATASET_EVENTS, DatasetFacts
from servers.life import free_port
from servers.postgresql import postgresql
from service import facts
from service.facts import SITE, STRANGER
from service.peer import Peer, envelope_of
from services.associations.app import DEFINITION
from services.gateway.embedded import EmbeddedGateway
from services.kernel import backlog, inbox, metrics, migrate
from services.kernel.amqp import AmqpBus
from services.kernel.backlog import Backlog
from services.kernel.db import Database
from services.kernel.inbox import Consumer, Delivery, Inbox, NotYet
from services.kernel.monitor import monitor_app
from services.kernel.relay import Relay
from services.kernel.service import Definition
from services.kernel.tables import inbox_message, outbox

PATH = "/api/v1/associations"
REQUEST = {"benchmark_id": 1, "dataset_id": 1}
ASKED = f"POST {PATH}"
CONSUMER = "associations.record_dataset"

Scraped = dict[tuple[str, frozenset[str]], float]


async def scrape(database: Database, *consumers: str) -> Scraped:
    """Every sample, by its name and its labels' values."""
    app = monitor_app(live={}, ready={}, refresh=Backlog(database, consumers).refresh)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
        response = await http.get("/metrics")
    assert response.status_code == 200
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


class Watched:
    """A service, and what its process shows before and after something happens."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.before: Scraped = {}
        self.before = self.now()

    def now(self) -> Scraped:
        return self.peer.run(scrape(self.peer.service.database, CONSUMER))

    def risen(self, name: str, *labels: str) -> float:
        """By how much since the last look; what was not there was 0."""
        key = (name, frozenset(labels))
        return self.now().get(key, 0.0) - self.before.get(key, 0.0)

    def value(self, name: str, *labels: str) -> float | None:
        return self.now().get((name, frozenset(labels)))


@pytest.fixture
def peer(start: Callable[[Definition], Peer]) -> Peer:
    peer = start(DEFINITION)
    peer.tell(facts.benchmark())
    peer.tell(facts.dataset())
    return peer


@pytest.fixture
def watched(peer: Peer) -> Watched:
    return Watched(peer)


# --- requests ---


def test_a_request_is_counted_by_its_answer_and_timed(watched: Watched) -> None:
    assert watched.peer.call("POST", PATH, REQUEST, by=SITE).status_code == 201
    assert watched.risen("medperf_requests_total", "associations", ASKED, "201", "") == 1
    assert watched.risen("medperf_request_duration_seconds_count", "associations", ASKED) == 1
    assert watched.risen("medperf_request_duration_seconds_sum", "associations", ASKED) > 0


@pytest.mark.parametrize(
    ("body", "by", "status", "code"),
    [
        ({"benchmark_id": "x"}, SITE, 422, "invalid_input"),
        (REQUEST, STRANGER, 404, "no_such_thing"),
        (REQUEST, None, 401, "token_missing"),
    ],
)
def test_a_refusal_is_counted_by_its_code(
    watched: Watched, body: object, by: int | None, status: int, code: str
) -> None:
    answer = watched.peer.call("POST", PATH, body, by=by)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert watched.risen("medperf_requests_total", "associations", ASKED, str(status), code) == 1


def test_a_bug_is_counted_as_the_servers_fault(watched: Watched) -> None:
    async def break_it() -> None:
        async with watched.peer.service.database.write() as session:
            await session.execute(text("ALTER TABLE associations RENAME TO gone"))

    watched.peer.run(break_it())
    assert watched.peer.call("GET", f"{PATH}/1", by=SITE).status_code == 500
    endpoint = f"GET {PATH}/{{association_id}}"
    assert watched.risen("medperf_requests_total", "associations", endpoint, "500", "internal_error") == 1


def test_no_address_is_a_label_but_as_the_route_writes_it(watched: Watched) -> None:
    for number in (7_654_321, 7_654_322):
        watched.peer.call("GET", f"{PATH}/{number}", by=SITE)
    watched.peer.call("GET", f"{PATH}-7654321", by=SITE)
    shown = {value for _, values in watched.now() for value in values}
    assert not [value for value in shown if "765432" in value]
    assert f"GET {PATH}/{{association_id}}" in shown


def test_waiting_for_news_is_measured(watched: Watched) -> None:
    watched.peer.call("GET", PATH, by=SITE, headers={"Medperf-Seen": "dataset/1@1"})
    assert watched.risen("medperf_seen_wait_seconds_count", "associations") == 0
    answer = watched.peer.call("GET", PATH, by=SITE, headers={"Medperf-Seen": "dataset/1@9"})
    assert answer.json()["code"] == "not_known_yet"
    assert watched.risen("medperf_seen_wait_seconds_count", "associations") == 1
    assert watched.risen("medperf_seen_wait_seconds_sum", "associations") >= 2


# --- events on their way in ---


def fresh(dataset_id: int, *, ago: timedelta = timedelta()) -> Envelope:
    """An event that was recorded just now, or so long ago."""
    return envelope_of(facts.dataset(id=dataset_id)).model_copy(update={"time": datetime.now(UTC) - ago})


def test_a_delivery_is_counted_once_as_handled_with_its_lag(watched: Watched) -> None:
    envelope = fresh(2, ago=timedelta(seconds=30))
    for _ in range(3):
        watched.peer.run(watched.peer.bus.publish([envelope]))
    assert watched.risen("medperf_inbox_attempts_total", CONSUMER, "handled") == 1
    assert watched.risen("medperf_inbox_attempts_total", CONSUMER, "handled_before") == 2
    assert watched.risen("medperf_inbox_attempt_seconds_count", CONSUMER) == 3
    assert watched.risen("medperf_event_lag_seconds_count", CONSUMER) == 1
    assert watched.risen("medperf_event_lag_seconds_sum", CONSUMER) == pytest.approx(30, abs=10)


def test_a_publisher_whose_clock_is_ahead_makes_no_negative_lag(watched: Watched) -> None:
    watched.peer.run(watched.peer.bus.publish([fresh(2, ago=-timedelta(hours=1))]))
    assert watched.risen("medperf_event_lag_seconds_count", CONSUMER) == 1
    assert watched.risen("medperf_event_lag_seconds_sum", CONSUMER) == 0


def test_what_waits_fails_and_dies_in_the_inbox_is_told_apart(watched: Watched) -> None:
    reasons: list[Exception] = [NotYet("for its benchmark"), *[ValueError("never")] * inbox.ATTEMPTS_MOST]

    async def effect(session: AsyncSession, dataset: DatasetFacts, delivery: Delivery) -> None:
        raise reasons.pop(0)

    database = watched.peer.service.database
    receiving = Inbox(database, [Consumer(CONSUMER, DATASET_EVENTS, effect)])
    watched.peer.run(receiving.queues()[0].receive(fresh(2)))
    assert watched.value("medperf_inbox_messages", CONSUMER, "waiting") == 1

    async def again() -> None:
        async with database.write() as session:
            await session.execute(update(inbox_message).values(next_millis=0))
        await receiving.retry_due()

    watched.peer.run(again())
    assert watched.value("medperf_inbox_messages", CONSUMER, "waiting") == 0
    assert watched.value("medperf_inbox_messages", CONSUMER, "failed") == 1
    assert watched.value("medperf_dead_letters", "associations", "in", CONSUMER) == 0
    while reasons:
        watched.peer.run(again())
    assert watched.value("medperf_inbox_messages", CONSUMER, "failed") == 0
    assert watched.value("medperf_dead_letters", "associations", "in", CONSUMER) == 1
    for outcome, count in {"waiting": 1, "failed": inbox.ATTEMPTS_MOST - 1, "dead": 1}.items():
        assert watched.risen("medperf_inbox_attempts_total", CONSUMER, outcome) == count
    assert watched.risen("medperf_event_lag_seconds_count", CONSUMER) == 0, "it had no effect"


# --- events on their way out ---


def test_a_stuck_outbox_shows_its_depth_and_its_age_and_a_relay_that_fails(watched: Watched) -> None:
    assert watched.peer.call("POST", PATH, REQUEST, by=SITE).status_code == 201
    assert watched.value("medperf_outbox_events", "associations", "waiting") == 1
    time.sleep(0.05)
    assert watched.value("medperf_outbox_oldest_age_seconds", "associations") >= 0.05  # type: ignore[operator]

    no_broker = AmqpBus(f"amqp://associations:secret@127.0.0.1:{free_port()}/medperf", name="associations")
    watched.peer.run(Relay(watched.peer.service.database, no_broker).publish_waiting())
    assert watched.value("medperf_outbox_events", "associations", "waiting") == 0
    assert watched.value("medperf_outbox_events", "associations", "failed") == 1
    assert watched.risen("medperf_relay_batches_total", "associations", "failed") == 1
    assert watched.risen("medperf_relay_events_total", "associations", "failed") == 1

    watched.peer.run(free_leases(watched.peer.service.database))
    assert watched.peer.run(watched.peer.service.relay.publish_waiting())
    assert watched.value("medperf_outbox_events", "associations", "failed") == 0
    assert watched.value("medperf_outbox_oldest_age_seconds", "associations") == 0
    assert watched.risen("medperf_relay_batches_total", "associations", "published") == 1
    assert watched.risen("medperf_relay_events_total", "associations", "published") == 1
    assert watched.risen("medperf_relay_confirm_seconds_count", "associations") == 2


def test_an_event_that_cannot_be_read_is_a_dead_letter_on_its_way_out_and_has_no_age(watched: Watched) -> None:
    watched.peer.call("POST", PATH, REQUEST, by=SITE)

    async def spoil() -> None:
        async with watched.peer.service.database.write() as session:
            await session.execute(update(outbox).values(envelope="{}"))
        await watched.peer.service.relay.publish_waiting()

    watched.peer.run(spoil())
    assert watched.value("medperf_dead_letters", "associations", "out", "") == 1
    assert watched.value("medperf_outbox_events", "associations", "waiting") == 0
    assert watched.value("medperf_outbox_oldest_age_seconds", "associations") == 0


def test_a_long_outbox_is_not_read_whole(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "COUNTED_MOST", 3)

    async def fill() -> None:
        async with watched.peer.service.database.write() as session:
            for number in range(5):
                await session.execute(
                    outbox.insert().values(event_id=str(number), topic="t", envelope="{}", recorded_millis=number)
                )

    watched.peer.run(fill())
    assert watched.value("medperf_outbox_events", "associations", "waiting") == 3


async def free_leases(database: Database) -> None:
    async with database.write() as session:
        await session.execute(update(outbox).values(not_before_millis=0))


# --- a database that is away ---


def test_a_database_that_hangs_holds_up_no_scrape_and_no_old_number_is_shown() -> None:
    with postgresql(fsync=False) as server:
        url = server.url_of(server.create_database("associations"))

        async def check() -> None:
            database = Database(url, service="associations")
            await migrate.upgrade(database)
            shown = await scrape(database)
            assert shown["medperf_database_up", frozenset({"associations"})] == 1
            assert shown["medperf_outbox_events", frozenset({"associations", "waiting"})] == 0
            watching = Backlog(database, [CONSUMER])
            server.freeze()
            try:
                for _ in range(3):
                    began = time.monotonic()
                    await watching.refresh()
                    assert time.monotonic() - began < backlog.ASK_SECONDS + 1
                    assert metrics.DATABASE_UP.labels("associations")._value.get() == 0
                    assert all(not family.samples for family in metrics.OUTBOX_EVENTS.collect())
                asking = [task for task in asyncio.all_tasks() if task.get_name() == "associations.backlog"]
                assert len(asking) == 1, "scrapes of a database that hangs pile up"
            finally:
                server.thaw()
            async with asyncio.timeout(20):
                while (await scrape(database))["medperf_database_up", frozenset({"associations"})] != 1:
                    await asyncio.sleep(0.1)
            await database.close()

        asyncio.run(check())


def test_a_database_that_refuses_is_said_at_once() -> None:
    async def check() -> Scraped:
        return await scrape(
            Database(f"postgresql+asyncpg://a:b@127.0.0.1:{free_port()}/a", service="associations")
        )

    began = time.monotonic()
    shown = asyncio.run(check())
    assert shown["medperf_database_up", frozenset({"associations"})] == 0
    assert not [name for name, _ in shown if name in ("medperf_outbox_events", "medperf_dead_letters")]
    assert time.monotonic() - began < backlog.ASK_SECONDS


# --- where it is shown ---


def test_no_metrics_are_shown_where_the_api_is(peer: Peer) -> None:
    gateway = EmbeddedGateway({"associations": peer.app}, assets=None, working=nullcontext())

    async def ask(path: str) -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway), base_url="http://test") as http:
            return (await http.get(path)).status_code

    for path in ("/metrics", "/api/v1/metrics", "/live", "/ready"):
        assert peer.call("GET", path).status_code == 404
        assert peer.run(ask(path)) == 404
