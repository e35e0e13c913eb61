"""Requests to a gateway that answers well, badly, late or not at all."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import httpx
import pytest

from medperf.api import Gateway
from medperf.credentials import Credentials, Keyring
from medperf.errors import LoginRequired, Refused, ServerUnreachable, StoreChanged
from medperf.home import Home
from medperf.retries import retry_after_seconds
from medperf_contracts.accounts import ServerView
from medperf_contracts.associations import AssociationDecision, AssociationView
from medperf_contracts.registry import BenchmarkChanges, BenchmarkView
from peers import answers
from peers.scripted_peer import CUT_OFF, Asked, Reply, Script, ScriptedPeer, by_path, in_turn

BENCHMARK = Reply.of(answers.benchmark(1), Medperf_Version="benchmark/1@2")
PENDING = Reply.of(answers.association(1), Medperf_Version="association/1@1")
EXPIRED = Reply.problem(401, "token_expired")
UNAVAILABLE = Reply.problem(503, "server_busy")
Begin = Callable[..., tuple[Gateway, ScriptedPeer]]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Start a peer with a script, and a gateway to it, logged in."""
    with ExitStack() as stack:

        def start(script: Script, **options: object) -> tuple[Gateway, ScriptedPeer]:
            peer = stack.enter_context(ScriptedPeer(script))
            home = Home(peer.url, tmp_path / "home")
            log_in(home)
            settings = {"bound_seconds": 3.0, "notice": lambda _: None, **options}
            gateway = Gateway(home, **settings)  # type: ignore[arg-type]
            stack.callback(gateway.close)
            return gateway, peer

        yield start


def log_in(home: Home, *, seconds: float = 900.0, number: int = 1) -> None:
    kept = Credentials(5, "ada", f"access-{number}", f"refresh-{number}-{'x' * 20}", time.time() + seconds)
    Keyring(home.credentials).keep(kept)


def test_a_request_carries_the_login_and_its_answer_is_typed(begin: Begin) -> None:
    gateway, peer = begin(in_turn(BENCHMARK))
    assert gateway.get("/benchmarks/1", BenchmarkView).name == "chest-1"
    assert peer.asked[0].path == "/api/v1/benchmarks/1"
    assert peer.asked[0].headers["authorization"] == "Bearer access-1"


def test_nobody_is_logged_in(begin: Begin, tmp_path: Path) -> None:
    gateway, peer = begin(in_turn(BENCHMARK))
    Keyring(Home(peer.url, tmp_path / "home").credentials).forget()
    with pytest.raises(LoginRequired):
        gateway.get("/benchmarks/1", BenchmarkView)
    assert peer.asked == []


# Trying again


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param(Reply(500, b"oops"), id="500"),
        pytest.param(Reply(502, b"<html>"), id="502"),
        pytest.param(UNAVAILABLE, id="503"),
        pytest.param(Reply(504), id="504"),
        pytest.param(CUT_OFF, id="cut off"),
        pytest.param(Reply(200, b'{"id": 1, "ver'), id="half a document"),
        pytest.param(Reply.problem(409, "in_progress", Retry_After="0"), id="in progress"),
        pytest.param(Reply.problem(503, "not_known_yet", Retry_After="0"), id="not known yet"),
        pytest.param(Reply.problem(429, "too_many_requests", Retry_After="0"), id="too many requests"),
    ],
)
def test_a_failed_post_is_sent_again_with_the_same_key_and_body(begin: Begin, failure: Reply) -> None:
    gateway, peer = begin(in_turn(failure, failure, PENDING))
    approved = gateway.post("/associations/1/approve", AssociationDecision(reason="fine"), AssociationView)
    assert approved.id == 1
    assert len(peer.asked) == 3
    assert len({asked.headers["idempotency-key"] for asked in peer.asked}) == 1
    assert {asked.body for asked in peer.asked} == {b'{"reason":"fine"}'}


def test_two_posts_have_two_keys_unless_they_are_told_one(begin: Begin) -> None:
    gateway, peer = begin(in_turn(PENDING))
    for key in (None, None, "the-same", "the-same"):
        gateway.post("/associations/1/approve", AssociationDecision(), AssociationView, key=key)
    keys = [asked.headers["idempotency-key"] for asked in peer.asked]
    assert len(set(keys)) == 3
    assert keys[2:] == ["the-same", "the-same"]


def test_a_server_that_is_not_there_is_tried_for_the_bound_and_no_longer(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    home = Home(f"http://127.0.0.1:{port}", tmp_path)
    log_in(home)
    notices: list[str] = []
    began = time.monotonic()
    with (
        pytest.raises(ServerUnreachable, match="is not answering"),
        Gateway(home, bound_seconds=2.5, notice=notices.append) as gateway,
    ):
        gateway.get("/benchmarks/1", BenchmarkView)
    assert 1.0 < time.monotonic() - began < 3.5
    assert notices
    assert all("Trying again" in notice and "of 2 s" in notice for notice in notices)


def test_a_server_that_never_answers_is_given_up_within_the_bound(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        home = Home(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path)
        log_in(home)
        began = time.monotonic()
        with (
            pytest.raises(ServerUnreachable, match="no answer in time"),
            Gateway(home, bound_seconds=2.0, notice=lambda _: None) as gateway,
        ):
            gateway.get("/benchmarks/1", BenchmarkView)
        assert time.monotonic() - began < 5


@pytest.mark.parametrize(("status", "code"), [(503, "not_known_yet"), (429, "too_many_requests")])
def test_retry_after_is_honoured(begin: Begin, status: int, code: str) -> None:
    gateway, _ = begin(in_turn(Reply.problem(status, code, Retry_After="1"), BENCHMARK))
    began = time.monotonic()
    gateway.get("/benchmarks/1", BenchmarkView)
    assert time.monotonic() - began >= 1.0


def test_a_retry_after_beyond_the_bound_ends_it_at_once(begin: Begin) -> None:
    gateway, peer = begin(in_turn(Reply.problem(503, "server_busy", Retry_After="3600")))
    began = time.monotonic()
    with pytest.raises(ServerUnreachable, match="503"):
        gateway.get("/benchmarks/1", BenchmarkView)
    assert time.monotonic() - began < 1.0
    assert len(peer.asked) == 1


def test_retry_after_has_two_forms() -> None:
    assert retry_after_seconds("7") == 7.0
    assert retry_after_seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert retry_after_seconds("soon") is None
    assert retry_after_seconds(None) is None


def test_what_stays_unknown_to_the_server_is_told_in_its_own_words(begin: Begin) -> None:
    gateway, _ = begin(in_turn(Reply.problem(503, "not_known_yet", "Has not heard of association/1@2.")))
    with pytest.raises(Refused, match="Has not heard of association/1@2"):
        gateway.get("/benchmarks/1", BenchmarkView)


def test_a_change_is_not_repeated_once_it_may_have_been_made(begin: Begin) -> None:
    for failure in (CUT_OFF, Reply(500), Reply(504)):
        gateway, peer = begin(in_turn(failure, BENCHMARK))
        with pytest.raises(ServerUnreachable, match="may have been made or not"):
            gateway.patch("/benchmarks/1", BenchmarkChanges(description="x"), BenchmarkView, version=2)
        assert len(peer.asked) == 1


def test_a_change_that_was_surely_not_made_is_sent_again(begin: Begin) -> None:
    gateway, peer = begin(in_turn(UNAVAILABLE, BENCHMARK))
    gateway.patch("/benchmarks/1", BenchmarkChanges(description="x"), BenchmarkView, version=2)
    assert [asked.headers["if-match"] for asked in peer.asked] == ['"2"', '"2"']


# Refusals


def test_a_problem_document_becomes_a_refusal_with_its_words(begin: Begin) -> None:
    problem = {
        "title": "Already live",
        "status": 409,
        "code": "already_live",
        "detail": "There is one.",
        "hint": "Look at it.",
        "existing": "association/4",
    }
    gateway, peer = begin(in_turn(Reply.of(problem, 409)))
    with pytest.raises(Refused) as raised:
        gateway.post("/associations/1/approve", AssociationDecision(), AssociationView)
    error = raised.value
    assert (str(error), error.hint, error.code, error.status) == (
        "There is one.",
        "Look at it.",
        "already_live",
        409,
    )
    assert error.existing == "association/4"
    assert len(peer.asked) == 1


def test_an_answer_that_is_not_medperfs_names_the_address(begin: Begin) -> None:
    gateway, peer = begin(in_turn(Reply(404, b"<html>nothing here</html>")))
    with pytest.raises(Refused, match=f"{peer.url} answered with status 404"):
        gateway.get("/benchmarks/1", BenchmarkView)
    gateway, peer = begin(in_turn(Reply.of({"hello": "world"})))
    with pytest.raises(ServerUnreachable, match="something that is no BenchmarkView"):
        gateway.get("/benchmarks/1", BenchmarkView)


# Lists, versions


def test_a_list_is_read_to_its_end_page_by_page(begin: Begin) -> None:
    first = Reply.of(answers.page(answers.benchmark(1), answers.benchmark(2), next_cursor="c2"))
    gateway, peer = begin(in_turn(first, Reply.of(answers.page(answers.benchmark(3)))))
    found = gateway.items("/benchmarks", BenchmarkView, owner="me", name=None)
    assert next(found).id == 1
    assert len(peer.asked) == 1
    assert [one.id for one in found] == [2, 3]
    assert [asked.query for asked in peer.asked] == [
        {"owner": "me", "limit": "100"},
        {"owner": "me", "limit": "100", "cursor": "c2"},
    ]


def test_a_list_whose_next_page_is_itself_ends(begin: Begin) -> None:
    gateway, _ = begin(in_turn(Reply.of(answers.page(answers.benchmark(1), next_cursor="again"))))
    with pytest.raises(ServerUnreachable, match="next page is itself"):
        list(islice(gateway.items("/benchmarks", BenchmarkView), 9))


def test_what_was_seen_is_said_with_what_builds_on_it(begin: Begin) -> None:
    gateway, peer = begin(
        by_path(
            {
                "GET /api/v1/benchmarks": Reply.of(answers.page(answers.benchmark(1, version=4))),
                "POST /api/v1/associations/1/approve": PENDING,
                "GET /api/v1/associations/1": PENDING,
            }
        )
    )
    list(gateway.items("/benchmarks", BenchmarkView))
    gateway.post("/associations/1/approve", AssociationDecision(), AssociationView)
    gateway.get("/associations/1", AssociationView, seen=["association/1", "benchmark/1", "dataset/9"])
    assert "medperf-seen" not in peer.asked[1].headers
    assert peer.asked[2].headers["medperf-seen"] == "association/1@1, benchmark/1@4"


def test_a_bad_version_header_is_not_believed(begin: Begin) -> None:
    gateway, _ = begin(in_turn(Reply.of(answers.benchmark(1), Medperf_Version="nonsense")))
    with pytest.raises(ServerUnreachable, match="nonsense"):
        gateway.get("/benchmarks/1", BenchmarkView)


# The login


def test_an_expired_login_is_renewed_without_asking(begin: Begin, tmp_path: Path) -> None:
    def script(asked: Asked) -> Reply:
        if asked.path == "/api/v1/auth/refresh":
            assert asked.json == {"refresh_token": f"refresh-1-{'x' * 20}"}
            return Reply.of(answers.tokens(2))
        return BENCHMARK if asked.headers["authorization"] == "Bearer access-2" else EXPIRED

    gateway, peer = begin(script)
    gateway.get("/benchmarks/1", BenchmarkView)
    assert peer.paths() == ["/api/v1/benchmarks/1", "/api/v1/auth/refresh", "/api/v1/benchmarks/1"]
    assert "idempotency-key" not in peer.asked[1].headers
    kept = json.loads((tmp_path / "home" / "credentials.json").read_text())
    assert kept["access_token"] == "access-2"


def test_a_login_about_to_expire_is_renewed_before_the_request(begin: Begin, tmp_path: Path) -> None:
    gateway, peer = begin(
        by_path({"POST /api/v1/auth/refresh": Reply.of(answers.tokens(2)), "GET /api/v1/benchmarks/1": BENCHMARK})
    )
    log_in(Home(peer.url, tmp_path / "home"), seconds=5)
    gateway.get("/benchmarks/1", BenchmarkView)
    assert peer.paths() == ["/api/v1/auth/refresh", "/api/v1/benchmarks/1"]


def test_a_change_that_a_lost_database_may_have_made_is_not_sent_again(begin: Begin) -> None:
    gateway, peer = begin(in_turn(Reply.problem(503, "storage_failed"), Reply.problem(412, "precondition_failed")))
    with pytest.raises(ServerUnreachable):
        gateway.patch("/benchmarks/1", BenchmarkChanges(description="new"), BenchmarkView, version=2)
    assert len(peer.asked) == 1


def test_a_refresh_whose_answer_is_lost_is_tried_with_the_same_token(begin: Begin, tmp_path: Path) -> None:
    gateway, peer = begin(
        by_path(
            {
                "POST /api/v1/auth/refresh": in_turn(CUT_OFF, Reply.of(answers.tokens(2))),
                "GET /api/v1/benchmarks/1": BENCHMARK,
            }
        )
    )
    log_in(Home(peer.url, tmp_path / "home"), seconds=0)
    gateway.get("/benchmarks/1", BenchmarkView)
    assert len({asked.body for asked in peer.asked[:2]}) == 1


def test_a_login_renewed_by_another_terminal_is_taken_over(begin: Begin, tmp_path: Path) -> None:
    gateway, peer = begin(
        lambda asked: BENCHMARK if asked.headers.get("authorization") == "Bearer access-9" else EXPIRED
    )
    gateway._credentials = Keyring(tmp_path / "home" / "credentials.json").load()
    log_in(Home(peer.url, tmp_path / "home"), number=9)
    gateway.get("/benchmarks/1", BenchmarkView)
    assert peer.paths() == ["/api/v1/benchmarks/1"] * 2


def test_a_command_does_not_go_on_as_somebody_else(begin: Begin, tmp_path: Path) -> None:
    gateway, peer = begin(in_turn(EXPIRED))
    gateway._credentials = Keyring(tmp_path / "home" / "credentials.json").load()
    other = Credentials(6, "bob", "access-b", "refresh-b", time.time() + 900)
    Keyring(tmp_path / "home" / "credentials.json").keep(other)
    with pytest.raises(LoginRequired, match="logged in as bob"):
        gateway.get("/benchmarks/1", BenchmarkView)
    assert len(peer.asked) == 1


def test_a_login_that_has_ended_asks_where_somebody_is_there(begin: Begin) -> None:
    def script(asked: Asked) -> Reply:
        if asked.path == "/api/v1/auth/refresh":
            return Reply.problem(401, "login_ended")
        if asked.path == "/api/v1/auth/login":
            assert asked.json == {"username": "ada", "password": "secret for ada"}
            return Reply.of(answers.tokens(3))
        if asked.path == "/api/v1/server":
            return Reply.of(answers.SERVER)
        return BENCHMARK if asked.headers["authorization"] == "Bearer access-3" else EXPIRED

    gateway, _ = begin(script, ask_login=lambda username: f"secret for {username}")
    assert gateway.get("/benchmarks/1", BenchmarkView).id == 1


ANOTHER_STORE = {**answers.SERVER, "store_id": "00000000-0000-4000-8000-0000000000ff"}


def test_no_password_is_asked_for_where_another_store_answers_now(begin: Begin, tmp_path: Path) -> None:
    def never(_: str) -> str:
        pytest.fail("a password was asked for")

    replies = {
        "POST /api/v1/auth/refresh": Reply.problem(401, "login_ended"),
        "GET /api/v1/server": Reply.of(ANOTHER_STORE),
        "GET /api/v1/benchmarks/1": EXPIRED,
    }
    for ask_login in (never, None):
        gateway, peer = begin(by_path(replies), ask_login=ask_login)
        gateway_home(peer, tmp_path).check_store(ServerView.model_validate(answers.SERVER))
        with pytest.raises(StoreChanged, match="another store"):
            gateway.get("/benchmarks/1", BenchmarkView)
        assert "/api/v1/auth/login" not in peer.paths()


def test_a_store_that_changes_while_a_password_is_typed_is_asked_for_nothing_more(
    begin: Begin, tmp_path: Path
) -> None:
    replies: dict[str, Reply | Script] = {
        "POST /api/v1/auth/refresh": Reply.problem(401, "login_ended"),
        "POST /api/v1/auth/login": Reply.of(answers.tokens(3)),
        "GET /api/v1/server": in_turn(Reply.of(answers.SERVER), Reply.of(ANOTHER_STORE)),
        "GET /api/v1/benchmarks/1": EXPIRED,
    }
    gateway, peer = begin(by_path(replies), ask_login=lambda _: "secret")
    with pytest.raises(StoreChanged, match="another store"):
        gateway.get("/benchmarks/1", BenchmarkView)
    assert peer.paths().count("/api/v1/benchmarks/1") == 1, "its IDs mean nothing there"
    assert gateway_home(peer, tmp_path).credentials.exists() is False


def gateway_home(peer: ScriptedPeer, tmp_path: Path) -> Home:
    return Home(peer.url, tmp_path / "home")


def test_a_login_that_has_ended_is_an_error_where_nobody_is_there(begin: Begin) -> None:
    gateway, peer = begin(
        by_path(
            {
                "POST /api/v1/auth/refresh": Reply.problem(401, "login_ended"),
                "GET /api/v1/server": Reply.of(answers.SERVER),
                "GET /api/v1/benchmarks/1": EXPIRED,
            }
        )
    )
    with pytest.raises(LoginRequired, match="has ended"):
        gateway.get("/benchmarks/1", BenchmarkView)
    assert peer.paths() == ["/api/v1/benchmarks/1", "/api/v1/auth/refresh", "/api/v1/server"]


def test_a_server_that_refuses_every_token_does_not_loop(begin: Begin) -> None:
    gateway, peer = begin(
        by_path({"POST /api/v1/auth/refresh": Reply.of(answers.tokens(2)), "GET /api/v1/benchmarks/1": EXPIRED})
    )
    with pytest.raises(LoginRequired):
        gateway.get("/benchmarks/1", BenchmarkView)
    assert len(peer.asked) == 3


def test_a_wrong_password_is_refused_and_keeps_nothing(begin: Begin, tmp_path: Path) -> None:
    gateway, peer = begin(in_turn(Reply.problem(401, "wrong_credentials", "Wrong.")))
    Keyring(Home(peer.url, tmp_path / "home").credentials).forget()
    with pytest.raises(Refused, match=r"Wrong\."):
        gateway.login("ada", "no")
    assert gateway.username is None
    assert len(peer.asked) == 1


def test_logging_out_forgets_the_login_also_where_the_server_is_gone(begin: Begin, tmp_path: Path) -> None:
    gateway, _ = begin(in_turn(Reply(503)), bound_seconds=0.3)
    with pytest.raises(ServerUnreachable):
        gateway.logout()
    assert not (tmp_path / "home" / "credentials.json").exists()
    assert gateway.logout() is False


def test_logging_out_ends_this_login_by_its_token(begin: Begin) -> None:
    gateway, peer = begin(in_turn(Reply(204)))
    assert gateway.logout() is True
    assert peer.asked[0].json == {"refresh_token": f"refresh-1-{'x' * 20}"}


def test_logging_out_of_a_login_that_has_ended_asks_for_no_password(begin: Begin) -> None:
    def never(_: str) -> str:
        pytest.fail("a password was asked for")

    gateway, _ = begin(
        by_path(
            {
                "POST /api/v1/auth/refresh": Reply.problem(401, "login_ended"),
                "GET /api/v1/server": Reply.of(answers.SERVER),
                "POST /api/v1/auth/logout": EXPIRED,
            }
        ),
        ask_login=never,
    )
    assert gateway.logout() is True


# Downloads

CONTENT = bytes(range(256)) * 4096


def fetched(gateway: Gateway, url: str) -> bytes:
    received = bytearray()
    gateway.download(url, received.extend)
    return bytes(received)


def ranges(asked: Asked) -> Reply:
    """A server that knows ranges, and cuts each answer off after 300,000 bytes."""
    begins = int(asked.headers.get("range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
    part = CONTENT[begins:]
    headers = {"Content-Range": f"bytes {begins}-{len(CONTENT) - 1}/{len(CONTENT)}"}
    return Reply(206 if begins else 200, part, headers, cut_after=300_000 if len(part) > 300_000 else None)


def test_an_asset_is_taken_up_where_the_connection_broke(begin: Begin) -> None:
    gateway, peer = begin(ranges)
    assert fetched(gateway, "/assets/a.tar.gz") == CONTENT
    assert len(peer.asked) >= 3
    assert all("range" in asked.headers for asked in peer.asked[1:])


def test_a_server_that_knows_no_ranges_gives_each_byte_once_all_the_same(begin: Begin) -> None:
    gateway, peer = begin(in_turn(Reply(200, CONTENT, cut_after=300_000), Reply(503), Reply(200, CONTENT)))
    assert fetched(gateway, "/assets/a.tar.gz") == CONTENT
    assert len(peer.asked) == 3


def test_an_asset_that_is_not_there_is_refused_naming_it(begin: Begin) -> None:
    gateway, peer = begin(in_turn(Reply(404)))
    with pytest.raises(Refused, match=f"{peer.url}/assets/gone cannot be fetched: status 404"):
        fetched(gateway, "/assets/gone")


def test_a_redirect_without_end_ends(begin: Begin) -> None:
    gateway, peer = begin(in_turn(Reply(302, headers={"Location": "/assets/a"})))
    with pytest.raises(Refused, match="without end"):
        fetched(gateway, "/assets/a")
    assert len(peer.asked) == 6


def test_an_asset_is_given_as_it_is_stored_not_as_it_was_encoded_on_the_way(begin: Begin) -> None:
    packed = b"\x1f\x8b not really gzip"
    gateway, peer = begin(in_turn(Reply(200, packed, {"Content-Encoding": "gzip"})))
    assert fetched(gateway, "/assets/a.tar.gz") == packed
    assert peer.asked[0].headers["accept-encoding"] == "identity"


def test_the_transport_is_a_seam(tmp_path: Path) -> None:
    home = Home("https://medperf.example.org", tmp_path)
    log_in(home)
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, stream=httpx.ByteStream(json.dumps(answers.benchmark(1)).encode()))

    with Gateway(home, transport=httpx.MockTransport(answer)) as gateway:
        gateway.get("/benchmarks/1", BenchmarkView)
        fetched(gateway, "https://files.example.org/a")
    assert [str(request.url) for request in seen] == [
        "https://medperf.example.org/api/v1/benchmarks/1",
        "https://files.example.org/a",
    ]
    assert "authorization" not in seen[1].headers
