"""Bad input over real HTTP: each is refused with a problem document and a hint; nothing makes the server fail."""

from __future__ import annotations

import base64
import json
import select
import signal
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from medperf_contracts.bounds import BODY_BYTES_MOST
from medperf_contracts.problems import MEDIA_TYPE, Problem
from medperf_contracts.versions import IDEMPOTENCY_HEADER
from service.served import ADA, Server, servers

MEGABYTE = 1024 * 1024
CONTAINERS = "/api/v1/containers"
WRONG_ALGORITHM, WRONG_KEY = b'{"alg": [], "kid": {}}', b'{"alg": "Ed25519", "kid": 7}'
NEW = {"name": "c", "manifest": "name: c"}


@dataclass(frozen=True)
class Answer:
    """What came back on a socket, and how much had been sent by then."""

    status: int
    headers: dict[str, str]
    problem: Problem
    sent_bytes: int
    seconds: float


class Caller:
    """Ada, towards a running server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.url = httpx.URL(server.url)
        server.post_as_operator("users", ADA)
        login = {name: ADA[name] for name in ("username", "password")}
        answer = httpx.post(f"{server.url}/api/v1/auth/login", json=login, trust_env=False, timeout=30)
        self.token = str(answer.json()["access_token"])

    def ask(self, method: str, path: str, *, token: str | None = None, **options: Any) -> httpx.Response:
        headers = {
            "Authorization": f"Bearer {self.token if token is None else token}".encode("latin-1"),
            IDEMPOTENCY_HEADER: str(uuid.uuid4()),
            **options.pop("headers", {}),
        }
        return httpx.request(
            method, f"{self.server.url}{path}", headers=headers, trust_env=False, timeout=20, **options
        )

    def refused(self, method: str, path: str, **options: Any) -> tuple[int, str]:
        answer = self.ask(method, path, **options)
        assert answer.headers["content-type"] == MEDIA_TYPE, answer.text
        assert Problem.model_validate_json(answer.content).hint
        return answer.status_code, answer.json()["code"]

    def send(self, head: list[str], parts: Iterator[bytes], *, path: str = CONTAINERS) -> Answer:
        """Send a request by hand, part by part, until the server has answered, or stops taking it."""
        lines = [
            f"POST {path} HTTP/1.1",
            f"Host: {self.url.netloc.decode()}",
            f"Authorization: Bearer {self.token}",
            f"{IDEMPOTENCY_HEADER}: {uuid.uuid4()}",
            "Content-Type: application/json",
            *head,
        ]
        began, sent = time.monotonic(), 0
        with socket.create_connection((self.url.host, self.url.port or 0), timeout=20) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode())
            for part in parts:
                if select.select([connection], [], [], 0)[0]:
                    break
                try:
                    connection.sendall(part)
                except OSError:
                    break
                sent += len(part)
            said = b""
            while chunk := _received(connection):
                said += chunk
        top, _, body = said.partition(b"\r\n\r\n")
        status, *fields = top.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
        problem = Problem.model_validate_json(body)
        return Answer(int(status.split()[1]), headers, problem, sent, time.monotonic() - began)


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except ConnectionResetError:
        return b""


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    """One server for all: whatever was sent before, it still answers, and has not failed once."""
    home: Path = tmp_path_factory.mktemp("bad") / "server"
    with servers(home) as start:
        server = start()
        caller = Caller(server)
        yield caller
        assert caller.ask("GET", "/api/v1/users/me").status_code == 200
        server.stop(signal.SIGTERM)
        log = [json.loads(line) for line in (home / "server.log").read_text().splitlines()]
        assert [line for line in log if line["level"] == "error" or line.get("outcome") == "internal_error"] == []


# --- bodies


def endless(size: int = 65536) -> Iterator[bytes]:
    while True:
        yield b" " * size


def chunked(parts: Iterator[bytes]) -> Iterator[bytes]:
    for part in parts:
        yield b"%x\r\n%s\r\n" % (len(part), part)


def test_a_body_of_ten_megabytes_is_refused_without_being_read(caller: Caller) -> None:
    answer = caller.send([f"Content-Length: {10 * MEGABYTE}"], (b" " * 65536 for _ in range(160)))
    assert (answer.status, answer.problem.code) == (413, "body_too_large")
    assert answer.problem.hint
    assert answer.headers["connection"] == "close"
    assert answer.sent_bytes < 9 * MEGABYTE, "the answer comes while the client still sends"
    assert answer.seconds < 10


def test_a_body_of_which_nothing_is_sent_is_refused_by_its_length(caller: Caller) -> None:
    answer = caller.send([f"Content-Length: {10 * MEGABYTE}", "Expect: 100-continue"], iter(()))
    assert (answer.status, answer.sent_bytes) == (413, 0)
    assert answer.seconds < 10, "the connection does not hang"


def test_a_body_in_chunks_without_an_end_is_refused_at_the_bound(caller: Caller) -> None:
    answer = caller.send(["Transfer-Encoding: chunked"], chunked(endless()))
    assert (answer.status, answer.problem.code) == (413, "body_too_large")
    assert BODY_BYTES_MOST < answer.sent_bytes < 10 * MEGABYTE
    assert answer.seconds < 10


@pytest.mark.parametrize("path", ["/api/v1/nothing", "/assets/nothing", "/api/v1/notifications"])
def test_an_answer_that_needs_no_body_does_not_wait_for_an_endless_one(caller: Caller, path: str) -> None:
    answer = caller.send(["Transfer-Encoding: chunked"], chunked(endless()), path=path)
    assert answer.status in (404, 405)
    assert answer.seconds < 10


def test_an_answer_does_not_wait_for_a_client_that_stops_in_the_middle(caller: Caller) -> None:
    answer = caller.send(["Transfer-Encoding: chunked"], chunked(iter([b" " * 10])), path="/api/v1/nothing")
    assert answer.status == 404
    assert answer.seconds < 10


def test_a_client_that_hangs_up_in_the_middle_of_its_body_changes_nothing(caller: Caller) -> None:
    before = caller.ask("GET", CONTAINERS).json()["items"]
    content = json.dumps(NEW).encode()
    head = [
        f"POST {CONTAINERS} HTTP/1.1",
        f"Host: {caller.url.netloc.decode()}",
        f"Authorization: Bearer {caller.token}",
        f"{IDEMPOTENCY_HEADER}: {uuid.uuid4()}",
        f"Content-Length: {len(content)}",
    ]
    with socket.create_connection((caller.url.host, caller.url.port or 0), timeout=20) as connection:
        connection.sendall("\r\n".join([*head, "", ""]).encode() + content[:-1])
        time.sleep(0.3)
    time.sleep(0.3)
    assert caller.ask("GET", CONTAINERS).json()["items"] == before


def test_a_common_client_reads_the_refusal_of_a_body_that_it_is_still_sending(caller: Caller) -> None:
    assert caller.refused("POST", CONTAINERS, content=b" " * (10 * MEGABYTE)) == (413, "body_too_large")
    assert caller.refused("POST", CONTAINERS, content=iter([b" " * MEGABYTE] * 10)) == (413, "body_too_large")


def test_a_connection_is_kept_after_a_refusal_that_took_the_whole_body(caller: Caller) -> None:
    with httpx.Client(base_url=caller.server.url, trust_env=False) as client:
        refused = client.post(CONTAINERS, json=NEW)
        assert (refused.status_code, refused.headers.get("connection")) == (401, None)
        assert client.get("/api/v1/server").status_code == 200


@pytest.mark.parametrize("opening", [b"[", b'{"a":'], ids=["lists", "objects"])
def test_ten_thousand_nested_levels_are_refused(caller: Caller, opening: bytes) -> None:
    closing = b"]" if opening == b"[" else b"1" + b"}" * 10_000
    body = opening * 10_000 + (closing * 10_000 if opening == b"[" else closing)
    for inside in (body, b'{"name": "c", "manifest": %s}' % body):
        answer = caller.refused("POST", CONTAINERS, content=inside, headers={"Content-Type": "application/json"})
        assert answer == (400, "invalid_document")


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "multipart/form-data", "nonsense", ""])
def test_a_wrong_content_type_is_refused(caller: Caller, kind: str) -> None:
    answer = caller.refused("POST", CONTAINERS, content=json.dumps(NEW), headers={"Content-Type": kind})
    assert answer == (422, "invalid_input")


@pytest.mark.parametrize(
    ("changed", "status", "code"),
    [
        ({"name": "a\0b"}, 400, "invalid_document"),
        ({"name": "a\x1b[31mb"}, 422, "invalid_input"),
        ({"name": "a\nb"}, 422, "invalid_input"),
        ({"name": "a\u202eb"}, 422, "invalid_input"),
        ({"name": "a\ud800b"}, 400, "invalid_document"),
        ({"description": "a\x07b"}, 422, "invalid_input"),
        ({"name": "x" * 129}, 422, "invalid_input"),
        ({"manifest": "x" * (128 * 1024 + 1)}, 422, "invalid_input"),
        ({"unknown": 1}, 422, "invalid_input"),
        ({"name": 2**70}, 422, "invalid_input"),
    ],
)
def test_a_text_that_is_not_plain_or_too_long_or_unknown_is_refused(
    caller: Caller, changed: dict[str, Any], status: int, code: str
) -> None:
    content = json.dumps(NEW | changed)
    answer = caller.refused("POST", CONTAINERS, content=content, headers={"Content-Type": "application/json"})
    assert answer == (status, code)


# --- addresses and headers


@pytest.mark.parametrize("number", ["9223372036854775808", "9" * 5000, "-1", "1.5", "a%0ab", "x" * 5000])
def test_an_id_beyond_64_bits_or_none_at_all_is_refused(caller: Caller, number: str) -> None:
    assert caller.refused("GET", f"{CONTAINERS}/{number}") == (422, "invalid_input")
    assert caller.refused("GET", f"/api/v1/due?dataset={number}") == (422, "invalid_input")
    body = b'{"benchmark_id": %s, "dataset_id": 1}' % (b"9" * 5000)
    answer = caller.refused(
        "POST", "/api/v1/associations", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer == (400, "invalid_document")


@pytest.mark.parametrize("cursor", ["x", "-1", "9" * 19, "1%00", "%E2%82%AC", "", "1 OR 1=1"])
def test_a_bad_cursor_is_refused(caller: Caller, cursor: str) -> None:
    assert caller.refused("GET", f"{CONTAINERS}?cursor={cursor}") == (422, "invalid_input")


@pytest.mark.parametrize("path", ["/assets/a%0ab", f"/assets/{'x' * 5000}", "/assets/%ff"])
def test_an_address_that_no_file_can_have_is_not_there(caller: Caller, path: str) -> None:
    assert caller.refused("GET", path) == (404, "no_such_address")


@pytest.mark.parametrize("seen", ["dataset/99999999999999999999@1", "dataset/1@99999999999999999999", "\x7f"])
def test_a_version_that_cannot_be_is_refused(caller: Caller, seen: str) -> None:
    answer = caller.refused("GET", "/api/v1/associations", headers={"Medperf-Seen": seen})
    assert answer == (400, "seen_malformed")


def part(document: bytes) -> str:
    return base64.urlsafe_b64encode(document).decode().rstrip("=")


def test_a_token_that_is_none_is_refused_whatever_it_holds(caller: Caller) -> None:
    header, payload, signature = caller.token.split(".")
    for token in (
        "nonsense",
        "..",
        f"{header}.{payload}.{part(b'x' * 64)}",
        f"{part(b'[' * 10_000)}.{payload}.{signature}",
        f"{part(b'[]')}.{payload}.{signature}",
        f"{part(b'null')}.{payload}.{signature}",
        f"{part(b'{}')}.{payload}.{signature}",
        f"{part(WRONG_ALGORITHM)}.{payload}.{signature}",
        f"{part(WRONG_KEY)}.{payload}.{signature}",
        f"{part(bytes(range(256)))}.{payload}.{signature}",
        "\xe9\xff",
        "operator.",
        f"operator.{'x' * 40}",
    ):
        assert caller.refused("GET", "/api/v1/users/me", token=token) == (401, "token_invalid"), token[:80]


def test_an_expired_token_and_one_of_another_server_are_refused(caller: Caller, tmp_path: Path) -> None:
    from joserfc import jwt

    from services.accounts import signing_keys
    from services.kernel.auth import ALGORITHM, AUDIENCE, ISSUER

    def signed(key_file: Path, *, seconds: int) -> str:
        key, now = signing_keys.signing_key(key_file), int(time.time())
        says = {"iss": ISSUER, "aud": AUDIENCE, "sub": "1", "name": "ada", "admin": True}
        times = {"iat": now, "exp": now + seconds}
        return jwt.encode({"alg": ALGORITHM, "kid": key.kid}, says | times, key, algorithms=[ALGORITHM])

    own, foreign = caller.server.home / "signing_key.json", tmp_path / "foreign.json"
    signing_keys.create_signing_key(foreign)
    assert caller.ask("GET", "/api/v1/users", token=signed(own, seconds=60)).status_code == 200
    for token, code in (
        (signed(own, seconds=-60), "token_expired"),
        (signed(foreign, seconds=60), "token_invalid"),
    ):
        assert caller.refused("GET", "/api/v1/users", token=token) == (401, code)
