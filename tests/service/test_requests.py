"""The way of a request through the kernel: admission, keys, news, transactions, bad documents."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OKPKey
from sqlalchemy import text

from medperf_contracts.bounds import BODY_BYTES_MOST
from medperf_contracts.envelope import Envelope
from medperf_contracts.paging import PAGE_LIMIT_MOST
from service import facts
from service.facts import COMMITTEE, SITE, STRANGER
from service.peer import OPERATOR_TOKEN, Peer, envelope_of
from service.triggers import CHANGES_NOTHING, IS_SLOW, also, create_trigger
from services.accounts import signing_keys
from services.associations.app import DEFINITION
from services.kernel import db, seen, sqlite
from services.kernel.auth import ALGORITHM
from services.kernel.service import Definition

PATH = "/api/v1/associations"
REQUEST = {"benchmark_id": 1, "dataset_id": 1}
KEY = "the-key-of-this-action"


@pytest.fixture
def peer(start: Callable[[Definition], Peer]) -> Peer:
    peer = start(DEFINITION)
    peer.tell(facts.benchmark())
    peer.tell(facts.dataset())
    return peer


def count(peer: Peer) -> int:
    return len(peer.call("GET", PATH, by=SITE).json()["items"])


# --- idempotency ---


def test_the_same_key_is_answered_as_it_was_and_acts_once(peer: Peer) -> None:
    first = peer.call("POST", PATH, REQUEST, by=SITE, key=KEY)
    again = peer.call("POST", PATH, REQUEST, by=SITE, key=KEY)
    assert (again.status_code, again.json()) == (201, first.json())
    for header in ("Medperf-Version", "ETag"):
        assert again.headers[header] == first.headers[header]
    assert count(peer) == len(peer.events()) == 1


def test_the_same_key_with_another_body_is_refused(peer: Peer) -> None:
    peer.call("POST", PATH, REQUEST, by=SITE, key=KEY)
    other = peer.call("POST", PATH, {**REQUEST, "dataset_id": 2}, by=SITE, key=KEY)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")


def test_another_persons_key_is_another_key(peer: Peer) -> None:
    peer.call("POST", PATH, REQUEST, by=SITE, key=KEY)
    assert peer.call("POST", PATH, REQUEST, by=COMMITTEE, key=KEY).status_code == 404


def test_a_refusal_is_not_kept_under_its_key(peer: Peer) -> None:
    peer.tell(facts.benchmark(is_valid=False), version=2)
    assert peer.call("POST", PATH, REQUEST, by=SITE, key=KEY).status_code == 409
    peer.tell(facts.benchmark(), version=3)
    assert peer.call("POST", PATH, REQUEST, by=SITE, key=KEY).status_code == 201


def test_two_requests_with_one_key_at_once_act_once(peer: Peer) -> None:
    async def twice() -> list[Any]:
        return await asyncio.gather(*(peer.send("POST", PATH, REQUEST, by=SITE, key=KEY) for _ in range(4)))

    answers = peer.run(twice())
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert count(peer) == 1


def test_the_same_key_at_another_address_is_another_key(peer: Peer) -> None:
    peer.tell(facts.dataset(id=2))
    for number in (1, 2):
        assert peer.call("POST", PATH, {**REQUEST, "dataset_id": number}, by=SITE).status_code == 201
    for number in (1, 2):
        answer = peer.call("POST", f"{PATH}/{number}/withdraw", {}, by=SITE, key=KEY)
        assert (answer.status_code, answer.json()["id"], answer.json()["state"]) == (200, number, "WITHDRAWN")
    assert peer.call("POST", PATH, REQUEST, by=SITE, key=KEY).status_code == 201


def test_a_key_is_known_for_a_day_and_then_forgotten(peer: Peer) -> None:
    peer.call("POST", PATH, REQUEST, by=SITE, key=KEY)
    other = {**REQUEST, "dataset_id": 2}
    minute = 60_000

    async def age(millis: int) -> None:
        async with peer.service.database.write() as session:
            await session.execute(text(f"UPDATE idempotency_key SET created_millis = created_millis - {millis}"))

    peer.run(age(24 * 60 * minute - minute))
    assert peer.call("POST", PATH, other, by=SITE, key=KEY).json()["code"] == "idempotency_key_reused"
    peer.run(age(2 * minute))
    assert peer.call("POST", PATH, other, by=SITE, key=KEY).json()["code"] == "no_such_thing"


@pytest.mark.parametrize("key", ["", "short", "with a space in it"])
def test_a_post_without_a_proper_key_is_refused(peer: Peer, key: str) -> None:
    response = peer.call("POST", PATH, REQUEST, by=SITE, key="", headers={"Idempotency-Key": key} if key else {})
    assert (response.status_code, response.json()["code"]) == (400, "idempotency_key_missing")
    assert count(peer) == 0


# --- read your writes ---


def test_a_caller_who_has_seen_more_waits_for_the_news(peer: Peer) -> None:
    peer.tell(facts.benchmark(is_valid=False), version=2)

    async def ask_then_hear() -> tuple[int, bool]:
        asking = asyncio.create_task(
            peer.send("POST", PATH, REQUEST, by=SITE, headers={"Medperf-Seen": "benchmark/1@3, result/8@9"})
        )
        await asyncio.sleep(0.3)
        waited = not asking.done()
        await peer.bus.publish([envelope_of(facts.benchmark(), version=3)])
        return (await asking).status_code, waited

    assert peer.run(ask_then_hear()) == (201, True)


def test_who_waits_for_news_holds_up_nobody(peer: Peer) -> None:
    async def while_one_waits() -> tuple[bool, int]:
        waiting = asyncio.create_task(peer.send("GET", PATH, by=SITE, headers={"Medperf-Seen": "dataset/1@7"}))
        await asyncio.sleep(0.1)
        other = await peer.send("POST", PATH, REQUEST, by=SITE)
        still_waiting = not waiting.done()
        await waiting
        return still_waiting, other.status_code

    assert peer.run(while_one_waits()) == (True, 201)


def test_news_that_do_not_come_are_answered_503_with_a_time_to_try_again(peer: Peer) -> None:
    began = time.monotonic()
    response = peer.call("POST", PATH, REQUEST, by=SITE, headers={"Medperf-Seen": "dataset/1@2"})
    assert 1.5 < time.monotonic() - began < 6
    assert (response.status_code, response.json()["code"]) == (503, "not_known_yet")
    assert response.headers["Retry-After"] == "1"
    assert count(peer) == 0


def test_without_the_header_a_service_answers_from_what_it_knows(peer: Peer) -> None:
    began = time.monotonic()
    assert peer.call("POST", PATH, {**REQUEST, "dataset_id": 55}, by=SITE).status_code == 404
    assert time.monotonic() - began < 1


def test_only_so_many_wait_for_news_and_the_rest_are_told_at_once(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen, "WAITERS_MOST", 1)
    ask = partial(peer.send, "GET", PATH, by=SITE, headers={"Medperf-Seen": "dataset/1@2"})

    async def ask_while_one_waits() -> tuple[Any, float]:
        waiting = asyncio.create_task(ask())
        await asyncio.sleep(0.3)
        began = time.monotonic()
        told = await ask()
        seconds = time.monotonic() - began
        assert (await waiting).status_code == 503
        return told, seconds

    async def ask_then_hear() -> int:
        waiting = asyncio.create_task(ask())
        await asyncio.sleep(0.1)
        await peer.bus.publish([envelope_of(facts.dataset(), version=2)])
        return (await waiting).status_code

    told, seconds = peer.run(ask_while_one_waits())
    assert (told.status_code, told.json()["code"], told.headers["Retry-After"]) == (503, "not_known_yet", "1")
    assert seconds < 1
    assert peer.run(ask_then_hear()) == 200, "whoever has waited makes room for the next"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_who_waits_for_news_holds_no_connection(peer: Peer, method: str) -> None:
    """A connection is taken for each look, and given back before the next."""

    async def look_at_the_pool_while_one_waits() -> set[int]:
        asking = peer.send(method, PATH, REQUEST, by=SITE, headers={"Medperf-Seen": "dataset/1@7"})
        waiting = asyncio.create_task(asking)
        await asyncio.sleep(0.1)
        held, ends = set(), time.monotonic() + seen.WAIT_SECONDS / 2
        while time.monotonic() < ends:
            held.add(peer.service.database.engine.pool.checkedout())  # type: ignore[attr-defined]
            await asyncio.sleep(0.011)
        assert (await waiting).status_code == 503
        return held

    assert 0 in peer.run(look_at_the_pool_while_one_waits())


@pytest.mark.parametrize("header", ["nonsense", "dataset/0@1", ",".join(f"dataset/{n}@1" for n in range(1, 12))])
def test_a_malformed_seen_header_is_refused(peer: Peer, header: str) -> None:
    response = peer.call("GET", PATH, by=SITE, headers={"Medperf-Seen": header})
    assert (response.status_code, response.json()["code"]) == (400, "seen_malformed")


# --- the transaction ---


def test_a_commit_that_fails_is_not_answered_as_a_success(peer: Peer) -> None:
    """A trigger makes the very commit fail: the answer must not have left before it."""

    async def break_commits() -> None:
        async with peer.service.database.write() as session:
            await session.execute(text("CREATE TABLE parent (id INTEGER PRIMARY KEY)"))
            await session.execute(
                text("CREATE TABLE child (id INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)")
            )
        await create_trigger(
            peer.service.database, "breaks", "AFTER INSERT ON outbox", also("INSERT INTO child VALUES (1)")
        )

    peer.run(break_commits())
    response = peer.call("POST", PATH, REQUEST, by=SITE)
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")
    assert count(peer) == 0


def test_a_question_sees_one_moment(peer: Peer) -> None:
    async def count_before_and_after_a_change() -> list[int]:
        async with peer.service.database.read() as session:
            there = text("SELECT count(*) FROM associations")
            counts = [int((await session.execute(there)).scalar_one())]
            assert (await peer.send("POST", PATH, REQUEST, by=SITE)).status_code == 201
            return [*counts, int((await session.execute(there)).scalar_one())]

    assert peer.run(count_before_and_after_a_change()) == [0, 0]
    assert count(peer) == 1


@pytest.mark.only_on("sqlite", because="changes take turns there")
def test_a_change_that_waits_too_long_for_its_turn_is_told_to_come_again(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "WRITER_WAIT_SECONDS", 0.1)

    async def ask_while_another_writes() -> Any:
        async with peer.service.database.write(), asyncio.timeout(5):
            return await peer.send("POST", PATH, REQUEST, by=SITE, key=KEY)

    refused = peer.run(ask_while_another_writes())
    assert (refused.status_code, refused.json()["code"]) == (503, "server_busy")
    assert refused.headers["Retry-After"] == "1"
    assert peer.call("POST", PATH, REQUEST, by=SITE, key=KEY).status_code == 201


@pytest.mark.only_on("sqlite", because="a process has all of it there")
def test_a_change_is_told_within_two_seconds_that_another_process_has_the_database(peer: Peer) -> None:
    """Such as one that copies the store. The client gives up after ten seconds: it must hear before that."""
    with sqlite3.connect(peer.service.database.engine.url.database or "") as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        refused = peer.call("POST", PATH, REQUEST, by=SITE, key=KEY)
        seconds = time.monotonic() - began
    assert (refused.status_code, refused.json()["code"]) == (503, "server_busy")
    assert refused.headers["Retry-After"] == "1"
    assert seconds < db.WRITER_WAIT_SECONDS + sqlite.BUSY_TIMEOUT_MILLIS / 1000 <= 2
    assert peer.call("POST", PATH, REQUEST, by=SITE, key=KEY).status_code == 201


@pytest.mark.only_on("sqlite", because="the turn is refused, not the key")
def test_who_asks_with_the_key_of_a_request_at_work_is_told_so_and_then_gets_its_answer(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "WRITER_WAIT_SECONDS", 0.1)
    ask = partial(peer.send, "POST", PATH, REQUEST, by=SITE)

    async def ask_while_the_first_is_at_work() -> list[Any]:
        await create_trigger(peer.service.database, "slow", "AFTER INSERT ON outbox", IS_SLOW)
        first = asyncio.create_task(ask(key=KEY))
        await asyncio.sleep(0.05)
        second, other = await asyncio.gather(ask(key=KEY), ask(key=f"{KEY}-of-another"))
        assert not first.done(), "the trigger is not slow enough for this machine"
        return [await first, second, other]

    first, second, other = peer.run(ask_while_the_first_is_at_work())
    assert first.status_code == 201
    assert (second.status_code, second.json()["code"]) == (409, "in_progress")
    assert second.headers["Retry-After"] == "1"
    assert (other.status_code, other.json()["code"]) == (503, "server_busy"), "another key is another request"
    again = peer.call("POST", PATH, REQUEST, by=SITE, key=KEY)
    assert (again.status_code, again.json()) == (201, first.json())
    assert count(peer) == 1


def test_who_loses_to_a_change_at_the_same_moment_is_told_so(peer: Peer) -> None:
    """The trigger leaves the row as another session's commit would have: not as it was read."""
    peer.call("POST", PATH, REQUEST, by=SITE)

    async def lose() -> None:
        await create_trigger(peer.service.database, "lose", "BEFORE UPDATE ON associations", CHANGES_NOTHING)

    peer.run(lose())
    recorded = len(peer.events())
    for headers, status, code in (
        ({}, 409, "changed_meanwhile"),
        ({"If-Match": '"1"'}, 412, "precondition_failed"),
    ):
        answer = peer.call("POST", f"{PATH}/1/approve", {}, by=COMMITTEE, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.json()["hint"]
    assert len(peer.events()) == recorded


@pytest.mark.only_on("sqlite", because="PRAGMAs are its own")
def test_commits_are_synchronous_and_foreign_keys_are_on(peer: Peer) -> None:
    async def pragmas() -> dict[str, Any]:
        async with peer.service.database.read() as session:
            names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            return {name: (await session.execute(text(f"PRAGMA {name}"))).scalar_one() for name in names}

    assert peer.run(pragmas()) == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 1_000,
    }


@pytest.mark.only_on("sqlite", because="changes take turns there")
def test_a_command_has_the_database_to_itself_from_its_beginning(peer: Peer) -> None:
    """Begun late, a command would read, lose the race for the lock, and fail: others must wait at once."""

    async def is_locked_for_others() -> bool:
        async with peer.service.database.write() as session:
            await session.execute(text("SELECT 1"))
            with sqlite3.connect(peer.service.database.engine.url.database or "", timeout=0) as other:
                try:
                    other.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError:
                    return True
                return False

    assert peer.run(is_locked_for_others())


@pytest.mark.only_on("sqlite", because="changes take turns there")
def test_writers_that_wait_hold_no_connection(peer: Peer) -> None:
    """More writers than the pool has connections: a reader gets one all the same."""

    async def read_while_many_wait() -> float:
        async def write() -> None:
            async with peer.service.database.write() as session:
                await session.execute(text("SELECT 1"))

        loop = asyncio.get_running_loop()
        async with peer.service.database.write() as session:
            await session.execute(text("SELECT 1"))
            waiting = [asyncio.create_task(write()) for _ in range(30)]
            await asyncio.sleep(0.2)
            began = loop.time()
            async with asyncio.timeout(5):
                await peer.send("GET", PATH, by=SITE)
            took = loop.time() - began
        await asyncio.gather(*waiting)
        return took

    assert peer.run(read_while_many_wait()) < 5


# --- who calls ---


def test_nobody_gets_in_without_a_good_token(peer: Peer) -> None:
    stranger_key = OKPKey.generate_key("Ed25519", auto_kid=True)
    good_key, peer.key = peer.key, stranger_key
    foreign = peer.token(SITE)
    peer.key = good_key
    good = peer.token(SITE)
    header, payload, _ = good.split(".")
    for token, code in (
        (None, "token_missing"),
        (peer.token(SITE, seconds=-61), "token_expired"),
        (foreign, "token_invalid"),
        (peer.token(SITE, iss="elsewhere"), "token_invalid"),
        (peer.token(SITE, aud="another-api"), "token_invalid"),
        (peer.token(SITE, sub="no number"), "token_invalid"),
        (f"{header}.{payload}.", "token_invalid"),
        (f"eyJhbGciOiJub25lIn0.{payload}.", "token_invalid"),
        ("nonsense", "token_invalid"),
        ("operator.guessed", "token_invalid"),
    ):
        response = peer.call("GET", PATH, token=token)
        assert (response.status_code, response.json()["code"]) == (401, code), token
        assert response.headers["WWW-Authenticate"] == "Bearer"
    assert peer.call("GET", PATH, token=good).status_code == 200


@pytest.mark.parametrize("content", [None, "", "{"], ids=["missing", "empty", "half"])
def test_while_the_keys_cannot_be_read_a_good_login_is_told_to_come_again(peer: Peer, content: str | None) -> None:
    good, file = peer.token(SITE), peer.service.settings.public_keys_file
    kept = file.read_text()
    file.unlink()
    if content is not None:
        file.write_text(content)
    peer.service.gate._public_keys = lambda: signing_keys.public_keys(file)
    answer = peer.call("GET", PATH, token=good)
    assert (answer.status_code, answer.json()["code"]) == (503, "keys_unreadable")
    assert answer.headers["Retry-After"] == "1"
    file.write_text(kept)
    assert peer.call("GET", PATH, token=good).status_code == 200


@pytest.mark.parametrize("claim", ["iss", "aud", "sub", "exp", "name", "admin"])
def test_a_token_that_leaves_out_what_it_must_say_is_refused(peer: Peer, claim: str) -> None:
    said = jwt.decode(peer.token(SITE), peer.key, algorithms=[ALGORITHM]).claims
    del said[claim]
    token = jwt.encode({"alg": ALGORITHM, "kid": peer.key.kid}, said, peer.key, algorithms=[ALGORITHM])
    response = peer.call("GET", PATH, token=token)
    assert (response.status_code, response.json()["code"]) == (401, "token_invalid")


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
def test_a_token_signed_in_another_way_is_refused_although_the_key_is_the_servers(peer: Peer) -> None:
    said = jwt.decode(peer.token(SITE), peer.key, algorithms=[ALGORITHM]).claims
    token = jwt.encode({"alg": "EdDSA", "kid": peer.key.kid}, said, peer.key, algorithms=["EdDSA"])
    response = peer.call("GET", PATH, token=token)
    assert (response.status_code, response.json()["code"]) == (401, "token_invalid")


def test_who_is_not_said_to_be_an_administrator_by_a_plain_true_is_none(peer: Peer) -> None:
    peer.call("POST", PATH, REQUEST, by=SITE)
    for admin, seen_by_them in (("false", 0), (1, 0), (True, 1)):
        answer = peer.call("GET", PATH, token=peer.token(STRANGER, admin=admin))
        assert len(answer.json()["items"]) == seen_by_them, admin


def test_the_operators_token_is_nobodys_login(peer: Peer) -> None:
    response = peer.call("GET", PATH, token=OPERATOR_TOKEN)
    assert (response.status_code, response.json()["code"]) == (403, "not_allowed")


# --- documents ---


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"{", 400, "invalid_document"),
        (b'{"benchmark_id": NaN}', 400, "invalid_document"),
        (b'{"benchmark_id": 1, "dataset_id": 1, "summary": {"a": 1e999}}', 400, "invalid_document"),
        (b'{"summary": {"a": "\\u0000"}}', 400, "invalid_document"),
        (b'{"summary": {"\\u0000": 1}}', 400, "invalid_document"),
        (b'{"summary": {"a": "\\ud800"}}', 400, "invalid_document"),
        (b"\xff\xfe", 400, "invalid_document"),
        (b'{"summary":' + b"[" * 100 + b"]" * 100 + b"}", 400, "invalid_document"),
        (b"[" * 10_000 + b"]" * 10_000, 400, "invalid_document"),
        (b"[]", 422, "invalid_input"),
        (b'{"benchmark_id": 1, "dataset_id": 1, "unknown": 1}', 422, "invalid_input"),
        (b'{"benchmark_id": 99999999999999999999, "dataset_id": 1}', 422, "invalid_input"),
        (b'{"benchmark_id": 1}', 422, "invalid_input"),
        (b"", 422, "invalid_input"),
        (b" " * (BODY_BYTES_MOST + 1), 413, "body_too_large"),
    ],
)
def test_a_document_that_cannot_be_kept_is_refused(peer: Peer, content: bytes, status: int, code: str) -> None:
    response = peer.call("POST", PATH, content=content, by=SITE)
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    assert count(peer) == 0


def test_a_body_that_comes_in_parts_has_the_same_bound(peer: Peer) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b" " * (BODY_BYTES_MOST // 4)

    response = peer.call("POST", PATH, content=parts(), by=SITE)
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")


def test_what_was_sent_is_not_echoed_in_a_refusal(peer: Peer) -> None:
    response = peer.call("POST", PATH, {"benchmark_id": "hunter2", "dataset_id": 1}, by=SITE)
    assert response.status_code == 422
    assert "hunter2" not in response.text


@pytest.mark.parametrize(
    "path",
    [
        f"{PATH}/99999999999999999999999",
        f"{PATH}/0",
        f"{PATH}/x",
        f"{PATH}?cursor=x",
        f"{PATH}?limit=0",
        f"{PATH}?state=NO",
    ],
)
def test_a_bad_id_cursor_or_filter_is_invalid_input(peer: Peer, path: str) -> None:
    response = peer.call("GET", path, by=SITE)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_input")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_parameter_that_the_endpoint_does_not_have_is_refused_by_its_name(peer: Peer, method: str) -> None:
    refused = peer.call(method, f"{PATH}?bogus=1", REQUEST if method == "POST" else None, by=SITE)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_input")
    assert refused.json()["fields"] == [{"field": "query.bogus", "problem": "there is no such parameter"}]
    assert count(peer) == 0
    long = peer.call("GET", f"{PATH}?limit=1&{'x' * 5000}=1", by=SITE)
    assert long.status_code == 422
    assert len(long.text) < 1000
    assert peer.call("GET", f"{PATH}?bogus=1").status_code == 401, "a stranger learns nothing of parameters"


def test_a_page_has_a_most(peer: Peer) -> None:
    assert peer.call("GET", f"{PATH}?limit={PAGE_LIMIT_MOST}", by=SITE).status_code == 200
    refused = peer.call("GET", f"{PATH}?limit={PAGE_LIMIT_MOST + 1}", by=SITE)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_input")


def test_addresses_and_methods_that_are_not_there_are_problems_too(peer: Peer) -> None:
    assert peer.call("GET", "/api/v1/nothing", by=SITE).json()["code"] == "no_such_address"
    assert peer.call("DELETE", PATH, by=SITE).json()["code"] == "method_not_allowed"


def test_a_trace_goes_on_into_the_event(peer: Peer) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    peer.call("POST", PATH, REQUEST, by=SITE, headers={"traceparent": trace})
    event: Envelope = peer.events()[0]
    assert event.traceparent == trace
    assert json.loads(event.model_dump_json())["specversion"] == "1.0"
