"""The front door: nginx before the services and the embedded gateway answer the same requests the same way."""

from __future__ import annotations

import json
import re
import sqlite3
import ssl
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from contract.conftest import DOCS
from contract.front_doors import (
    VALID_SECONDS,
    Answer,
    Deployment,
    Door,
    breaking,
    check_configuration,
    deployment,
    embedded,
    listening,
)
from contract.gateway_requests import ASSET, CONTAINERS, JSON, LOGIN, OPERATORS, REQUESTS, Ask
from medperf_contracts.access import ACCESS, Role
from medperf_contracts.problems import MEDIA_TYPE, Problem
from medperf_contracts.releases import SERVER
from peers.scripted_peer import Reply, ScriptedPeer
from servers.life import free_port
from services.gateway.nginx import deployments
from services.gateway.routes import from_outside

pytestmark = pytest.mark.xdist_group("front doors")


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployment(tmp_path_factory.mktemp("deployed")) as made:
        made.start()
        yield made


@pytest.fixture(scope="module")
def by_nginx(deployed: Deployment) -> Door:
    return deployed.door.log_in()


@pytest.fixture(scope="module")
def by_embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with embedded(tmp_path_factory.mktemp("embedded") / "store") as door:
        yield door.log_in()


@pytest.fixture(params=["nginx", "embedded"])
def door(request: pytest.FixtureRequest) -> Door:
    """Each front door."""
    found: Door = request.getfixturevalue(f"by_{request.param}")
    return found


@pytest.mark.parametrize("ask", REQUESTS, ids=str)
def test_a_request_gets_the_same_answer_at_both_doors(door: Door, ask: Ask) -> None:
    answer = door.ask(ask)
    assert (answer.status, answer.media) == (ask.status, ask.media), answer
    if ask.code is not None and ask.method != "HEAD":
        problem = Problem.model_validate_json(answer.body)
        assert (problem.code, problem.status) == (ask.code, ask.status)
        assert problem.hint


@pytest.mark.parametrize("prefix", OPERATORS)
def test_what_is_the_operators_alone_is_not_there_in_a_deployment(
    by_nginx: Door, by_embedded: Door, prefix: str
) -> None:
    for method, target in (("GET", prefix), ("POST", f"{prefix}/replay")):
        outside = by_nginx.send(method, target)
        assert (outside.status, outside.code) == (404, "no_such_address")
        assert by_embedded.send(method, target).code == "token_missing"


def test_every_endpoint_that_somebody_else_may_call_is_behind_the_front_door() -> None:
    def is_routed(path: str) -> bool:
        return any(path == prefix or path.startswith(f"{prefix}/") for prefix in from_outside())

    endpoints = {endpoint.partition(" ")[2]: roles for endpoint, roles in ACCESS.items()}
    assert [path for path, roles in endpoints.items() if roles != {Role.OPERATOR} and not is_routed(path)] == []
    assert {path for path in endpoints if not is_routed(path)} == {
        path for path in endpoints if path.startswith("/api/v1/dead-letters/")
    }


def test_plain_http_is_refused_and_leads_nowhere(by_nginx: Door) -> None:
    answer = by_nginx.send("GET", "/api/v1/server", is_plain=True)
    assert (answer.status, answer.code) == (400, "tls_required")
    assert "location" not in answer.headers


def test_tls_before_1_2_is_refused(deployed: Deployment) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old = ssl.create_default_context(cafile=deployed.authority.file)
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match="alert protocol version"):
        Door(deployed.port, tls=old).send("GET", "/api/v1/server")


def test_answers_are_kept_by_no_cache_and_shown_by_no_browser(by_nginx: Door) -> None:
    for target, kept in (
        ("/api/v1/server", "no-store"),
        ("/nothing", "no-store"),
        (f"/assets/{ASSET}", "no-cache"),
    ):
        headers = by_nginx.send("GET", target).headers
        assert headers["cache-control"] == kept
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert headers["strict-transport-security"] == "max-age=31536000"
        assert headers["server"] == "nginx", "no version"


def test_a_refusal_of_nginxs_own_is_a_problem_document_whatever_it_is(deployed: Deployment) -> None:
    door = deployed.door
    for sent, status, code in (
        (("GET", "/api/v1/server", {"Transfer-Encoding": "nonsense"}), 501, "bad_request"),
        (("GET", "/api/v1/server", {"Content-Length": "x"}), 400, "bad_request"),
        (("GET", f"/assets/{ASSET}", {"Range": "bytes=99-"}), 416, "bad_range"),
    ):
        answer = door.send(*sent)
        assert (answer.status, answer.media, answer.code) == (status, MEDIA_TYPE, code)


def test_a_service_that_is_down_is_said_and_when_to_ask_again(deployed: Deployment) -> None:
    for nobody in (["127.0.0.99"], []):
        with deployed.only("notifications", *nobody):
            answer = deployed.door.send("GET", "/api/v1/notifications")
        assert (answer.status, answer.code) == (502, "service_unreachable")
        assert answer.headers["retry-after"] == "1"


def test_a_service_that_does_not_answer_is_said_before_a_client_gives_up(deployed: Deployment) -> None:
    with listening("127.0.0.8", deployed.ports["notifications"]), deployed.only("notifications", "127.0.0.8"):
        began = time.monotonic()
        answer = deployed.door.send("GET", "/api/v1/notifications")
        assert time.monotonic() - began < 10
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (504, "service_too_slow", "1")


def test_a_service_is_told_the_requests_id_and_trace_and_nothing_that_a_caller_says_of_itself(
    deployed: Deployment,
) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    names = ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Forwarded")
    said = dict.fromkeys(names, "127.0.0.1")
    peer = ScriptedPeer(lambda _: Reply.of({}), address=("127.0.0.7", deployed.ports["notifications"]))
    with peer, deployed.only("notifications", "127.0.0.7"):
        for given, is_taken in (
            ("caller-1234.5_6", True),
            ("short", False),
            ("x" * 65, False),
            ('"x" or 12345', False),
        ):
            headers = {**said, "traceparent": trace, "X-Request-Id": given}
            answer = deployed.door.send("GET", "/api/v1/notifications?cursor=private", headers)
            heard = peer.asked[-1].headers
            assert heard["traceparent"] == trace
            assert not {name.lower() for name in said} & set(heard)
            assert heard["x-request-id"] == answer.headers["x-request-id"]
            assert (heard["x-request-id"] == given) is is_taken
            assert re.fullmatch(r"[A-Za-z0-9._-]{8,64}", heard["x-request-id"])
            assert peer.asked[-1].query == {"cursor": "private"}
            line = deployed.line_of(heard["x-request-id"])
            assert (line["trace_id"], line["path"]) == (trace.split("-")[1], "/api/v1/notifications")


def test_the_log_is_json_and_holds_no_token_no_query_and_no_body(deployed: Deployment) -> None:
    door = deployed.door.log_in()
    door.send("GET", "/api/v1/containers?cursor=private-query", door.authorization)
    door.send("POST", LOGIN, {"Content-Type": JSON}, b'{"username": "ada", "password": "private-password"}')
    last = door.send("GET", "/api/v1/server", {"X-Request-Id": 'private"id', "User-Agent": "private-agent"})
    deployed.line_of(last.headers["x-request-id"])
    text = deployed.log.read_text()
    assert "private" not in text
    assert door.authorization["Authorization"].split()[1] not in text
    line = [line for line in deployed.lines() if line["path"] == "/api/v1/containers"][-1]
    assert (line["method"], line["status"], line["service"]) == ("GET", "422", "registry")
    assert line["address"] == "127.0.0.1"


def test_the_orchestrators_port_says_that_it_lives_and_leads_to_no_service(deployed: Deployment) -> None:
    door = Door(deployed.monitor_port)
    assert door.send("GET", "/live").status == 200
    for target in ("/api/v1/server", "/metrics", f"/assets/{ASSET}", "/"):
        assert door.send("GET", target).code == "no_such_address"


def test_a_service_says_its_release_in_every_answer(door: Door) -> None:
    for target in ("/api/v1/server", CONTAINERS, "/api/v1/server?x=1"):
        assert door.send("GET", target).headers["medperf-server"] == SERVER
    refused = door.send("GET", "/api/v1/server", {"Medperf-Client": "medperf/0.0.9"})
    assert (refused.headers["medperf-server"], refused.headers["upgrade"]) == (SERVER, "medperf/0.1.0")


# --- replicas


def container(number: int) -> bytes:
    return json.dumps({"name": f"container {number}", "manifest": f"name: c{number}"}).encode()


def post_container(door: Door, number: int, **more: str) -> Answer:
    headers = {**door.authorization, "Content-Type": JSON, "Idempotency-Key": f"number-{number:06}", **more}
    return door.send("POST", CONTAINERS, headers, container(number))


def test_no_get_and_no_keyed_post_fails_while_replicas_are_killed_and_replaced(
    deployed: Deployment, by_nginx: Door
) -> None:
    first, second = (deployed.begin(address, "registry").wait() for address in ("127.0.0.2", "127.0.0.3"))
    is_over, made, before = threading.Event(), [], (len(deployed.lines()), count_containers(deployed))

    def read() -> set[int]:
        found = set()
        while not is_over.is_set():
            found.add(by_nginx.send("GET", CONTAINERS, by_nginx.authorization).status)
        return found

    def write() -> set[int]:
        found = set()
        while not is_over.is_set():
            found.add(post_container(by_nginx, len(made)).status)
            made.append(len(made))
        return found

    with deployed.only("registry", "127.0.0.2", "127.0.0.3"), ThreadPoolExecutor() as pool:
        running = [pool.submit(read), pool.submit(read), pool.submit(write)]
        try:
            time.sleep(1)
            first.kill()
            time.sleep(1)
            deployed.begin("127.0.0.4", "registry").wait()
            deployed.name("registry", "127.0.0.3", "127.0.0.4")
            time.sleep(VALID_SECONDS + 1)
            second.kill()
            time.sleep(1)
        finally:
            is_over.set()
        assert [each.result() for each in running] == [{200}, {200}, {201}]
    lines = [line for line in deployed.lines()[before[0] :] if line["service"] == "registry"]
    assert any(", " in line["replicas"] for line in lines), "some had to be asked again elsewhere"
    assert any(line["replicas"].startswith("127.0.0.4:") for line in lines), "the new replica was found"
    assert count_containers(deployed) - before[1] == len(made), "none is there twice, and none is missing"


def count_containers(deployed: Deployment) -> int:
    with closing(sqlite3.connect(deployed.store / "registry.db")) as database:
        return int(database.execute("SELECT count(*) FROM containers").fetchone()[0])


@pytest.fixture
def with_a_breaking_replica(deployed: Deployment) -> Iterator[Callable[[], list[str]]]:
    """Half of the registry's addresses take a request and break the connection; gives who was asked since."""
    before = len(deployed.lines())

    def asked() -> list[str]:
        deployed.line_of(deployed.door.send("GET", "/api/v1/server").headers["x-request-id"])
        return [line["replicas"] for line in deployed.lines()[before:] if line["service"] == "registry"]

    replica = breaking("127.0.0.5", deployed.ports["registry"])
    with replica, deployed.only("registry", "127.0.0.5", "127.0.0.1"):
        yield asked


def test_a_keyed_post_whose_answer_was_lost_is_asked_of_another_replica(
    by_nginx: Door, with_a_breaking_replica: Callable[[], list[str]]
) -> None:
    answers = [post_container(by_nginx, 1000 + number).status for number in range(20)]
    assert answers == [201] * 20
    assert any(", " in asked for asked in with_a_breaking_replica())


@pytest.mark.parametrize("method", ["PATCH", "POST"])
def test_what_twice_might_do_twice_is_asked_once_where_it_may_have_arrived(
    by_nginx: Door, with_a_breaking_replica: Callable[[], list[str]], method: str
) -> None:
    headers = {**by_nginx.authorization, "Content-Type": JSON, "If-Match": '"1"'}
    codes = [by_nginx.send(method, f"{CONTAINERS}/999", headers, b"{}").code for _ in range(20)]
    assert "service_unreachable" in codes
    assert len(set(codes)) == 2, "the other replica answers what arrives there"
    assert not any(", " in asked for asked in with_a_breaking_replica())


def test_what_no_replica_took_is_asked_of_another_one_whatever_it_is(deployed: Deployment, by_nginx: Door) -> None:
    headers = {**by_nginx.authorization, "Content-Type": JSON, "If-Match": '"1"'}
    with deployed.only("registry", "127.0.0.98", "127.0.0.1"):
        codes = {by_nginx.send("PATCH", f"{CONTAINERS}/999", headers, b"{}").code for _ in range(20)}
    assert codes == {"no_such_thing"}


# --- limits


@pytest.fixture
def limited(deployed: Deployment, tmp_path: Path) -> Iterator[Door]:
    """A gateway with small limits: 5 requests a second (20 at once), 2 logins a minute (1 more at once)."""
    server, door = deployed.gateway(
        tmp_path / "limited",
        port=free_port(),
        monitor=f"127.0.0.1:{free_port()}",
        requests_a_second=5,
        logins_a_minute=2,
    )
    try:
        yield door
    finally:
        server.stop()


def test_logins_are_limited_by_address_however_theirs_is_written(limited: Door) -> None:
    wrong = b'{"username": "ada", "password": "a guess"}'
    answers = [
        limited.send("POST", target, {"Content-Type": JSON, "X-Forwarded-For": f"198.51.100.{number}"}, wrong)
        for number, target in enumerate([LOGIN, "/api/v1/auth/logi%6e", f"{LOGIN}?x=1"] * 3)
    ]
    assert len([answer for answer in answers if answer.status != 429]) == 2
    refused = answers[-1]
    assert (refused.status, refused.code, refused.media) == (429, "too_many_requests", MEDIA_TYPE)
    assert refused.headers["retry-after"] == "30"
    assert limited.send("GET", "/api/v1/server").status == 200, "others are not held up"


def test_requests_are_limited_by_address(limited: Door) -> None:
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: limited.send("GET", "/api/v1/auth/jwks"), range(60)))
    refused = [answer for answer in answers if answer.status == 429]
    assert len(answers) - len(refused) >= 20
    assert refused
    assert {(answer.code, answer.headers["retry-after"]) for answer in refused} == {("too_many_requests", "1")}


@pytest.mark.parametrize("name", sorted(deployments()))
def test_a_kept_configuration_is_one_that_nginx_takes(name: str, deployed: Deployment, tmp_path: Path) -> None:
    chain = deployed.folder / "ca" / "127.0.0.1.pem"
    text = (DOCS.parent / "deploy" / "nginx" / name).read_text()
    text = text.replace("kube-dns.kube-system.svc.cluster.local", "127.0.0.1").replace(" /tmp/", f" {tmp_path}/")
    text = re.sub(r"/run/secrets/gateway_\w+\.pem", str(chain), text)
    assert check_configuration(tmp_path, text) == ""
