"""What only PostgreSQL has: transactions that overlap, a server that goes away, others that hear of a commit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from httpx import Response
from sqlalchemy import select, text, update

from medperf_contracts.associations import PartKind
from servers.postgresql import PostgresqlServer, postgresql
from service import facts
from service.databases import Databases, databases_on
from service.facts import COMMITTEE, MODEL_OWNER, SITE
from service.peer import OPERATOR_TOKEN, Peer, envelope_of
from service.triggers import IS_SLOW, create_trigger
from services.accounts import app as accounts
from services.accounts import commands as accounts_commands
from services.accounts.domain import User
from services.accounts.errors import LastAdministrator
from services.associations import app as associations
from services.kernel import migrate, relay
from services.kernel import postgresql as kernel_postgresql
from services.kernel.bus import EmbeddedBus
from services.kernel.db import Database
from services.kernel.errors import ServerBusy, StorageFailed, StorageFull
from services.kernel.inbox import handle_once
from services.kernel.relay import Relay
from services.kernel.service import Definition
from services.kernel.tables import idempotency_key, outbox
from services.notifications import app as notifications
from services.results import app as results
from services.results.consumers import CONSUMERS as RESULTS_CONSUMERS

pytestmark = pytest.mark.only_on("postgresql", because="SQLite has one writer, no server and no other process")

PATH = "/api/v1/associations"
REQUEST = {"benchmark_id": 1, "dataset_id": 1}
KEY = "the-same-key"


@pytest.fixture
def peer(start: Callable[[Definition], Peer]) -> Peer:
    """The associations service, which knows a benchmark and a dataset."""
    peer = start(associations.DEFINITION)
    peer.tell(facts.benchmark())
    peer.tell(facts.dataset())
    return peer


@pytest.fixture
def own_server() -> Iterator[PostgresqlServer]:
    """One that the test may kill and freeze."""
    with postgresql() as server:
        yield server


@pytest.fixture
def own(own_server: PostgresqlServer, tmp_path: Path) -> Iterator[Peer]:
    """The associations service on a server of its own."""
    with databases_on(own_server) as databases:
        peer = Peer(associations.DEFINITION, tmp_path, databases.migrated("associations"))
        peer.tell(facts.benchmark())
        peer.tell(facts.dataset())
        yield peer
        peer.close()


@asynccontextmanager
async def other_process(peer: Peer) -> AsyncIterator[Database]:
    """Another process's connections to the service's database."""
    database = Database(peer.service.settings.database_url, service=peer.service.database.service)
    try:
        yield database
    finally:
        await database.close()


async def soon(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Begun, and given time to come as far as it can."""
    task = asyncio.create_task(work)
    await asyncio.sleep(0.3)
    return task


def refused(answer: Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


# --- two transactions at once


@pytest.mark.parametrize("last_to_commit", ["dataset", "model"])
def test_two_approvals_that_no_session_sees_both_of_count_in_either_commit_order(
    start: Callable[[Definition], Peer], last_to_commit: str
) -> None:
    """Both effects are there, uncommitted, before either commit."""
    peer = start(results.DEFINITION)
    for event in (facts.benchmark(), facts.container(), facts.container(id=2), facts.dataset()):
        peer.tell(event)
    model = facts.association(id=2, part_kind=PartKind.MODEL, part_id=4, part_owner_id=MODEL_OWNER)
    approvals = {"dataset": envelope_of(facts.association(), version=2), "model": envelope_of(model, version=2)}
    last = approvals.pop(last_to_commit)
    (first,) = approvals.values()

    async def deliver_both() -> None:
        async with other_process(peer) as other, peer.service.database.write() as outer:
            assert await handle_once(outer, RESULTS_CONSUMERS[-1], last)
            async with asyncio.timeout(5), other.write() as inner:
                assert await handle_once(inner, RESULTS_CONSUMERS[-1], first)

    peer.run(deliver_both())
    items = peer.call("GET", "/api/v1/due?dataset=1", by=SITE).json()["items"]
    assert [item["model_id"] for item in items] == [2, 4]


def test_of_two_administrators_who_are_disabled_at_once_one_stays(start: Callable[[Definition], Peer]) -> None:
    peer = start(accounts.DEFINITION)
    ids = [new_administrator(peer, name) for name in ("ada", "eva")]

    async def disable_both() -> None:
        async with other_process(peer) as other:

            async def disable_second() -> None:
                async with other.write() as session:
                    await accounts_commands.disable_user(session, ids[1])

            async with peer.service.database.write() as session:
                await accounts_commands.disable_user(session, ids[0])
                await session.flush()
                second = await soon(disable_second())
                assert not second.done(), "the second waits for the first"
            await second

    with pytest.raises(LastAdministrator):
        peer.run(disable_both())
    assert [user.is_active for user in peer.run(all_users(peer))] == [False, True]


async def all_users(peer: Peer) -> list[User]:
    async with peer.service.database.read() as session:
        return list(await session.scalars(select(User).order_by(User.id)))  # type: ignore[attr-defined]


def new_administrator(peer: Peer, name: str) -> int:
    async def create_store() -> None:
        async with peer.service.database.write() as session:
            await accounts_commands.create_store(session)

    peer.run(create_store())
    body = {"username": name, "password": "sesame-sesame", "is_admin": True}
    answer = peer.call("POST", "/api/v1/users", body, token=OPERATOR_TOKEN)
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def test_a_store_gets_one_identity_although_two_give_it_one_at_once(start: Callable[[Definition], Peer]) -> None:
    peer = start(accounts.DEFINITION)

    async def create(database: Database) -> Any:
        async with database.write() as session:
            return (await accounts_commands.create_store(session)).store_id

    async def create_twice() -> tuple[Any, Any]:
        async with other_process(peer) as other, peer.service.database.write() as session:
            first = await accounts_commands.create_store(session)
            await session.flush()
            second = await soon(create(other))
            assert not second.done()
            await session.commit()
            return first.store_id, await second

    first, second = peer.run(create_twice())
    assert first == second


def test_a_reader_who_marks_a_notification_twice_at_once_is_refused_neither_time(
    start: Callable[[Definition], Peer],
) -> None:
    peer = start(notifications.DEFINITION)
    peer.tell(facts.association())
    path = "/api/v1/notifications"
    number = peer.call("GET", path, by=SITE).json()["items"][0]["id"]

    async def mark_twice() -> Response:
        async with other_process(peer) as other, other.write() as session:
            await session.execute(text(f"SELECT 1 FROM notifications WHERE id = {number} FOR UPDATE"))
            second = await soon(peer.send("POST", f"{path}/{number}/read", {}, by=SITE))
            assert not second.done()
            await session.execute(text(f"UPDATE notifications SET read_at = 1, version = 2 WHERE id = {number}"))
            await session.commit()
            return await second  # type: ignore[no-any-return]

    assert peer.run(mark_twice()).status_code == 200


def test_of_two_equal_requests_at_once_the_second_is_told_of_the_first(peer: Peer) -> None:
    """The unique index, not the check: neither sees the other's row."""

    async def ask_twice() -> list[Response]:
        await create_trigger(peer.service.database, "slow", "AFTER INSERT ON outbox", IS_SLOW_HALF)
        return list(await asyncio.gather(*(peer.send("POST", PATH, REQUEST, by=SITE) for _ in range(2))))

    answers = peer.run(ask_twice())
    assert sorted(answer.status_code for answer in answers) == [201, 409]
    assert [answer.json()["code"] for answer in answers if answer.is_error] == ["already_live"]


IS_SLOW_HALF = ("", "PERFORM pg_sleep(0.5); RETURN NULL;")


# --- idempotency keys


def test_a_second_request_with_a_key_waits_two_seconds_for_the_first_and_is_then_told_so(peer: Peer) -> None:
    async def ask_while_the_first_is_at_work() -> tuple[Response, float, list[Response]]:
        await create_trigger(peer.service.database, "slow", "AFTER INSERT ON outbox", IS_SLOW)
        first = await soon(peer.send("POST", PATH, REQUEST, by=SITE, key=KEY))
        began = time.monotonic()
        second = await peer.send("POST", PATH, REQUEST, by=SITE, key=KEY)
        seconds = time.monotonic() - began
        assert not first.done(), "the trigger is not slow enough for this machine"
        return second, seconds, [await first]

    second, seconds, (first,) = peer.run(ask_while_the_first_is_at_work())
    assert first.status_code == 201
    assert refused(second) == (409, "in_progress")
    assert second.headers["Retry-After"] == "1"
    assert kernel_postgresql.LOCK_WAIT_SECONDS <= seconds < kernel_postgresql.LOCK_WAIT_SECONDS + 1
    again = peer.call("POST", PATH, REQUEST, by=SITE, key=KEY)
    assert (again.status_code, again.json()) == (201, first.json())


def test_a_second_request_with_a_key_gets_the_answer_of_the_first_where_it_comes_in_time(peer: Peer) -> None:
    async def ask_twice() -> list[Response]:
        await create_trigger(peer.service.database, "slow", "AFTER INSERT ON outbox", IS_SLOW_HALF)
        return list(await asyncio.gather(*(peer.send("POST", PATH, REQUEST, by=SITE, key=KEY) for _ in range(2))))

    one, other = peer.run(ask_twice())
    assert (one.status_code, one.json()) == (201, other.json())


def test_keys_that_another_request_is_forgetting_hold_nobody_up(peer: Peer) -> None:
    assert peer.call("POST", PATH, REQUEST, by=SITE, key=KEY).status_code == 201

    async def ask_while_another_forgets() -> Response:
        async with other_process(peer) as other, other.write() as session:
            await session.execute(update(idempotency_key).values(created_millis=0))
            await session.commit()
        async with other_process(peer) as other, other.write() as session:
            await session.execute(text("DELETE FROM idempotency_key"))
            async with asyncio.timeout(1.5):
                return await peer.send("POST", f"{PATH}/1/withdraw", {}, by=SITE)

    assert peer.run(ask_while_another_forgets()).status_code == 200


# --- several relays, and who hears of a commit


class Recorder(EmbeddedBus):
    """A bus that takes everything and notes it."""

    def __init__(self) -> None:
        super().__init__()
        self.published: list[str] = []

    async def publish(self, envelopes: Any) -> Any:
        self.published.extend(str(envelope.id) for envelope in envelopes)
        return {envelope.id for envelope in envelopes}


def test_two_relays_never_lease_the_same_event_and_a_lease_that_ran_out_is_taken_again(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 5):
        peer.tell(facts.dataset(id=number))
        assert peer.call("POST", PATH, REQUEST | {"dataset_id": number}, by=SITE).status_code == 201
    monkeypatch.setattr(relay, "BATCH", 2)
    waits = select(outbox.c.position).where(outbox.c.sent_millis.is_(None)).order_by(outbox.c.position).limit(2)

    async def lease() -> tuple[set[int], set[int], list[Any]]:
        async with other_process(peer) as other:
            first, second = Relay(peer.service.database, Recorder()), Relay(other, Recorder())
            async with other.write() as session:  # a relay between its lease's lock and its commit
                held = set((await session.scalars(waits.with_for_update(skip_locked=True))).all())
                async with asyncio.timeout(2):
                    taken = {position for position, _ in await first._lease()}
            left = {position for position, _ in await second._lease()}
            assert left == held, "what was locked and not leased is free again"
            none = await first._lease()
            async with other.write() as session:
                await session.execute(update(outbox).values(not_before_millis=1))
            again = {position for position, _ in await second._lease()}
            assert again == held | taken if len(again) == 4 else len(again) == 2
            return held, taken, none

    held, taken, none = peer.run(lease())
    assert (len(held), len(taken), held & taken, none) == (2, 2, set(), [])


def test_relays_of_several_processes_publish_every_event_once(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "BATCH", 3)
    for number in range(1, 21):
        peer.tell(facts.dataset(id=number))
        peer.call("POST", PATH, REQUEST | {"dataset_id": number}, by=SITE)
    bus = Recorder()

    async def empty(database: Database) -> None:
        while await Relay(database, bus).publish_waiting():
            pass

    async def relay_all() -> None:
        async with other_process(peer) as one, other_process(peer) as two:
            await asyncio.gather(empty(one), empty(two), empty(peer.service.database))

    peer.run(relay_all())
    assert len(bus.published) == len(set(bus.published)) == 20


async def is_woken(database: Database, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await database.outbox_filled.wait()
    except TimeoutError:
        return False
    return True


@asynccontextmanager
async def listening(database: Database) -> AsyncIterator[None]:
    task = asyncio.create_task(database.listen())
    assert await is_woken(database, 10), "what was committed before is looked for at once"
    database.outbox_filled.clear()
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def test_a_worker_hears_of_an_event_that_a_web_process_commits_and_of_nothing_else(peer: Peer) -> None:
    async def hear() -> list[bool]:
        async with other_process(peer) as worker, listening(worker):
            async with peer.service.database.write() as session:
                await session.execute(update(outbox).values(attempts=0))
            heard = [await is_woken(worker, 0.3)]
            await peer.send("POST", PATH, REQUEST, by=SITE)
            heard.append(await is_woken(worker, 2))
            worker.outbox_filled.clear()
            await peer.send("POST", f"{PATH}/1/withdraw", {}, by=COMMITTEE, headers={"If-Match": "nonsense"})
            return heard

    assert peer.run(hear()) == [False, True]


def test_a_service_at_work_listens(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a poll of an hour, only the notification can bring the relay to another process's event."""
    monkeypatch.setattr(relay, "POLL_SECONDS", 3600.0)

    async def event_of_another_process() -> float:
        async with peer.service.working(), other_process(peer) as other:
            await asyncio.sleep(0.5)
            web = Peer.__new__(Peer)  # the same application on the other process's connections
            web.__dict__ |= peer.__dict__
            async with other.write() as session:
                row = {"event_id": "11111111-1111-4111-8111-111111111111", "topic": "t", "envelope": "unreadable"}
                await session.execute(outbox.insert().values(**row, recorded_millis=1))
                session.info["recorded_event"] = True
            began = time.monotonic()
            while True:
                async with other.read() as session:
                    buried = select(outbox.c.buried_millis).where(outbox.c.envelope == "unreadable")
                    if (await session.scalar(buried)) is not None:
                        return time.monotonic() - began
                assert time.monotonic() < began + 10, "nobody looked"
                await asyncio.sleep(0.02)

    assert peer.run(event_of_another_process()) < 10


# --- a server that is away


def test_a_restarted_server_is_survived_and_the_listener_comes_back(
    own: Peer, own_server: PostgresqlServer
) -> None:
    async def restart() -> list[Response]:
        async with other_process(own) as worker, listening(worker):
            for _ in range(3):  # so that the pool has several
                assert (await own.send("GET", PATH, by=SITE)).status_code == 200
            await asyncio.to_thread(own_server.kill)
            away = [await own.send("GET", PATH, by=SITE), await own.send("POST", PATH, REQUEST, by=SITE, key=KEY)]
            await asyncio.to_thread(own_server._life.start)
            deadline = time.monotonic() + 30
            while (await own.send("GET", PATH, by=SITE)).status_code != 200:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
            back = await own.send("POST", PATH, REQUEST, by=SITE, key=KEY)
            assert await is_woken(worker, 15)
            return [*away, back]

    read, command, back = own.run(restart())
    for answer in (read, command):
        assert refused(answer) == (503, "storage_failed")
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.json()["hint"]
        assert "127.0.0.1" not in answer.text, "where the database is, is nobody's to know"
    assert back.status_code == 201


def test_an_orderly_restart_costs_no_request(own: Peer, own_server: PostgresqlServer) -> None:
    """Connections that the server closed are not handed out."""

    async def restart() -> list[int]:
        await asyncio.gather(*(own.send("GET", PATH, by=SITE) for _ in range(5)))
        await asyncio.to_thread(own_server.restart)
        return [(await own.send("GET", PATH, by=SITE)).status_code for _ in range(6)]

    assert own.run(restart()) == [200] * 6


def test_a_frozen_server_holds_no_request_for_ever(
    own: Peer, own_server: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_postgresql, "COMMAND_SECONDS", 1.0)
    monkeypatch.setattr(kernel_postgresql, "CONNECT_SECONDS", 1.0)
    quick = Peer(associations.DEFINITION, Path(own.service.settings.signing_keys_file).parent, _url(own))
    try:
        assert quick.call("GET", PATH, by=SITE).status_code == 200
        own_server.freeze()
        began = time.monotonic()
        answers = [quick.call("GET", PATH, by=SITE), quick.call("POST", PATH, REQUEST, by=SITE, key=KEY)]
        seconds = time.monotonic() - began
        own_server.thaw()
        assert [refused(answer) for answer in answers] == [(503, "storage_failed")] * 2
        assert seconds < 10
        assert quick.call("POST", PATH, REQUEST, by=SITE, key=KEY).status_code == 201
    finally:
        quick.close()


def _url(peer: Peer) -> str:
    return peer.service.settings.database_url


def test_a_process_that_stops_does_not_wait_for_a_frozen_server(
    own: Peer, own_server: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_postgresql, "CLOSE_SECONDS", 0.5)
    own_server.freeze()
    began = time.monotonic()
    own.run(own.service.database.close())
    assert time.monotonic() - began < 5
    own_server.thaw()


def test_a_server_with_no_connection_left_is_away_for_a_time(tmp_path: Path) -> None:
    options = {"max_connections": "5", "superuser_reserved_connections": "0", "max_wal_senders": "0"}
    with postgresql(options=options) as server, databases_on(server) as databases:
        peer = Peer(associations.DEFINITION, tmp_path, databases.migrated("associations"))

        async def ask_while_others_have_them_all() -> Response:
            held = [await kernel_postgresql.connect(_url(peer), service="other") for _ in range(5)]
            try:
                return await peer.send("GET", PATH, by=SITE)
            finally:
                for connection in held:
                    await connection.close()

        assert refused(peer.run(ask_while_others_have_them_all())) == (503, "storage_failed")
        peer.close()


@pytest.mark.parametrize(
    ("state", "refusal"),
    [
        ("55P03", ServerBusy),
        ("40P01", ServerBusy),
        ("40001", ServerBusy),
        ("57014", ServerBusy),
        ("53100", StorageFull),
        ("53300", StorageFailed),
        ("57P01", StorageFailed),
        ("57P03", StorageFailed),
        ("08006", StorageFailed),
        ("58030", StorageFailed),
        ("25006", StorageFailed),
    ],
)
def test_each_failure_of_the_server_is_told_for_what_it_is(peer: Peer, state: str, refusal: type) -> None:
    """PostgreSQL itself raises it; nothing is changed."""

    async def fail() -> None:
        async with peer.service.database.write() as session:
            await session.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'so' USING ERRCODE = '{state}'; END $$"))

    with pytest.raises(refusal) as told:
        peer.run(fail())
    assert told.value.retry_after_seconds > 0


def test_two_that_wait_for_each_other_are_told_apart_within_bounded_time(peer: Peer) -> None:
    """A deadlock ends one of them as busy; the other goes on."""

    async def lock(database: Database, first: int, second: int, met: asyncio.Barrier) -> None:
        async with database.write() as session:
            await session.execute(text(f"SELECT pg_advisory_xact_lock({first})"))
            await met.wait()
            await session.execute(text(f"SELECT pg_advisory_xact_lock({second})"))

    async def both() -> list[BaseException | None]:
        met = asyncio.Barrier(2)
        async with other_process(peer) as other:
            mine, theirs = lock(peer.service.database, 1, 2, met), lock(other, 2, 1, met)
            return list(await asyncio.gather(mine, theirs, return_exceptions=True))

    ended = peer.run(both())
    assert [type(each) for each in ended if each is not None] == [ServerBusy]


def test_a_pool_without_a_free_connection_is_busy(peer: Peer) -> None:
    async def ask_while_all_are_taken() -> Response:
        async with asyncio.TaskGroup() as group:
            release, taken = asyncio.Event(), asyncio.Semaphore(0)

            async def hold() -> None:
                async with peer.service.database.read() as session:
                    await session.execute(text("SELECT 1"))
                    taken.release()
                    await release.wait()

            for _ in range(kernel_postgresql.POOL_SIZE):
                group.create_task(hold())
            for _ in range(kernel_postgresql.POOL_SIZE):
                await taken.acquire()
            try:
                return await peer.send("GET", PATH, by=SITE)
            finally:
                release.set()

    assert refused(peer.run(ask_while_all_are_taken())) == (503, "server_busy")


# --- sessions


def test_a_question_cannot_change_anything_and_a_change_gives_up_its_locks(peer: Peer) -> None:
    async def settings() -> list[str]:
        names = ("transaction_read_only", "transaction_isolation", "lock_timeout")
        shown = []
        for door in (peer.service.database.read(), peer.service.database.write()):
            async with door as session:
                shown += [(await session.execute(text(f"SHOW {name}"))).scalar_one() for name in names]
        async with peer.service.database.write(in_background=True) as session:
            shown.append((await session.execute(text("SHOW lock_timeout"))).scalar_one())
            shown.append((await session.execute(text("SHOW idle_in_transaction_session_timeout"))).scalar_one())
        return shown

    assert peer.run(settings()) == ["on", "repeatable read", "2s", "off", "read committed", "2s", "10s", "30s"]


# --- migrations


def test_two_migrations_at_once_leave_one_schema(databases: Databases) -> None:
    url = databases.empty()

    async def migrate_twice() -> None:
        both = [Database(url, service="registry") for _ in range(2)]
        await asyncio.gather(*(migrate.upgrade(database) for database in both))
        async with both[0].read() as session:
            assert len((await session.execute(text("SELECT version_num FROM alembic_version"))).all()) == 1
        for database in both:
            await database.close()

    asyncio.run(migrate_twice())


def test_a_runtime_role_may_use_what_a_migration_of_the_owner_makes_and_change_no_table(
    databases: Databases, tmp_path: Path
) -> None:
    """As `medperf-server provision` sets it up: the owner's default privileges."""
    server, url = databases.server, databases.empty()
    name = url.rpartition("/")[2]
    owner, runtime = f"{name}_owner", f"{name}_runtime"
    for role in (owner, runtime):
        server.fetch(f"CREATE ROLE {role} LOGIN PASSWORD 'pw'")
    server.fetch(f"ALTER DATABASE {name} OWNER TO {owner}")
    for statement in (
        f"ALTER SCHEMA public OWNER TO {owner}",
        f"GRANT USAGE ON SCHEMA public TO {runtime}",
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {runtime}",
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT USAGE ON SEQUENCES TO {runtime}",
    ):
        server.fetch(statement, database=name)

    async def migrate_as_owner() -> None:
        database = Database(server.url_of(name, user=owner, password="pw"), service="associations")
        await migrate.upgrade(database)
        await database.close()

    asyncio.run(migrate_as_owner())
    peer = Peer(associations.DEFINITION, tmp_path, server.url_of(name, user=runtime, password="pw"))
    try:
        peer.tell(facts.benchmark())
        peer.tell(facts.dataset())
        assert peer.call("POST", PATH, REQUEST, by=SITE).status_code == 201
        assert peer.run(Relay(peer.service.database, Recorder()).publish_waiting())

        async def change_a_table() -> None:
            async with peer.service.database.write() as session:
                await session.execute(text("ALTER TABLE associations ADD COLUMN more TEXT"))

        with pytest.raises(Exception, match="must be owner"):
            peer.run(change_a_table())
    finally:
        peer.close()
        if not server.is_own:
            server.drop_database(name)
            for role in (owner, runtime):
                server.fetch(f"DROP ROLE {role}")
