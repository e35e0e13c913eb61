"""The hospital's network: proxies, a CA of the site's own, plain http, and where the login's token goes."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from containers.small import Site, archive_of, code, manifest_of
from containers.wheels import wheel
from medperf.api import Gateway
from medperf.credentials import Credentials, Keyring
from medperf.errors import Refused, ServerUnreachable, UsageError
from medperf.home import Home
from medperf.manifest import Role
from medperf.network import Network
from medperf.proxies import proxy_for
from medperf_contracts.associations import AssociationDecision, AssociationView
from medperf_contracts.registry import BenchmarkView
from peers import answers
from peers.benchmark_server import BenchmarkServer
from peers.certificates import Authority
from peers.proxy import Proxy
from peers.scripted_peer import Asked, Reply, ScriptedPeer, by_path, in_turn

MEDPERF = Path(sys.executable).with_name("medperf")
# A name that no resolver knows: whoever reaches it went through the proxy.
NAME = "medperf.hospital.invalid"
# Not loopback to the client, and yet this machine's own listener: what another machine on the network would be.
ELSEWHERE = "0.0.0.0"
TOKEN = "access-of-ada"
CONTENT = b"weights" * 1000
BENCHMARK = Reply.of(answers.benchmark(1), Medperf_Version="benchmark/1@2")
PROXY_VARIABLES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


def script(asked: Asked) -> Reply:
    replies = {
        "GET /api/v1/server": Reply.of(answers.SERVER),
        "GET /api/v1/users/me": Reply.of(answers.user()),
        "GET /api/v1/benchmarks": Reply.of(answers.page(answers.benchmark(1))),
        "GET /api/v1/benchmarks/1": BENCHMARK,
        "GET /assets/a.tar.gz": Reply(200, CONTENT),
    }
    return by_path(replies)(asked)


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine that has no network settings."""
    own = ("MEDPERF_CA", "MEDPERF_ALLOW_HTTP", "MEDPERF_ALLOW_HOSTS")
    for name in (*PROXY_VARIABLES, "NO_PROXY", "no_proxy", *own):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MEDPERF_HOME", str(tmp_path / "home"))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def server(authority: Authority) -> Iterator[ScriptedPeer]:
    """A server with TLS, by the name that only the proxy knows or as a machine beside this one."""
    with ScriptedPeer(script, tls=authority.server(NAME, ELSEWHERE, "127.0.0.1")) as peer:
        yield peer


def logged_in(address: str) -> Home:
    home = Home.at(address)
    Keyring(home.credentials).keep(Credentials(5, "ada", TOKEN, f"refresh-{'x' * 20}", time.time() + 900))
    return home


def gateway_of(home: Home, ca: Path | None = None, **more: object) -> closing[Gateway]:
    network = Network.of(home.root, ca=str(ca) if ca else None, allow_http=bool(more.pop("allow_http", False)))
    settings = {"bound_seconds": 3.0, "notice": lambda _: None, **more}
    return closing(Gateway(home, network=network, **settings))  # type: ignore[arg-type]


def fetched(gateway: Gateway, url: str) -> bytes:
    received = bytearray()
    gateway.download(url, received.extend)
    return bytes(received)


def medperf(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [MEDPERF, *arguments],
        env={**os.environ, **environment},
        input="a password\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# Proxies


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_the_server_and_its_assets_are_reached_through_the_proxy_which_sees_no_token(
    server: ScriptedPeer, authority: Authority, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    with Proxy({f"{NAME}:443": server.port, "files.invalid:443": server.port}) as proxy:
        monkeypatch.setenv(variable, proxy.url())
        with gateway_of(logged_in(f"https://{NAME}"), authority.file) as gateway:
            assert gateway.get("/benchmarks/1", BenchmarkView).name == "chest-1"
            assert fetched(gateway, f"https://{NAME}/assets/a.tar.gz") == CONTENT
            with pytest.raises(ServerUnreachable, match="for another name"):
                fetched(gateway, "https://files.invalid/assets/a.tar.gz")
        assert proxy.lines() == [
            *[f"CONNECT {NAME}:443 HTTP/1.1"] * 2,
            "CONNECT files.invalid:443 HTTP/1.1",
        ]
        assert server.asked[0].headers["authorization"] == f"Bearer {TOKEN}"
        seen = b"".join(proxy.heads) + bytes(proxy.tunnelled)
        assert len(seen) > 1000
        for secret in (TOKEN, "authorization", "benchmarks", "a.tar.gz"):
            assert secret.encode() not in seen.lower()


def test_a_proxy_gets_its_name_and_password_and_nobody_else_does(
    server: ScriptedPeer, authority: Authority, tmp_path: Path
) -> None:
    with Proxy({f"{NAME}:443": server.port}, login="eva:p@ss w%rd") as proxy:
        logged_in(f"https://{NAME}")
        settings = {
            "MEDPERF_SERVER": f"https://{NAME}",
            "HTTPS_PROXY": proxy.url(),
            "MEDPERF_CA": str(authority.file),
        }
        done = medperf("benchmark", "ls", **settings)
        assert done.returncode == 0, done.stderr
        assert "chest-1" in done.stdout
        assert all("proxy-authorization" not in asked.headers for asked in server.asked)
        wrong = {**settings, "HTTPS_PROXY": proxy.url("eva:sesame")}
        refused = medperf("benchmark", "ls", **wrong)
        assert refused.returncode == ServerUnreachable.exit_code
        assert (
            f"The proxy 127.0.0.1:{proxy.port} (HTTPS_PROXY) does not accept the name and password"
            in refused.stderr
        )
        without = medperf("benchmark", "ls", **{**settings, "HTTPS_PROXY": proxy.url("")})
        assert "wants a name and password" in without.stderr
        assert "What to do: Set HTTPS_PROXY to http://NAME:PASSWORD@" in without.stderr
        for printed in (done, refused, without):
            assert not any(part in printed.stdout + printed.stderr for part in ("eva", "sesame", "p@ss", "p%40ss"))


@pytest.mark.parametrize("status", [403, 407, 502])
@pytest.mark.parametrize("what", ["gateway", "asset"])
def test_a_proxy_that_lets_nothing_through_is_named_without_its_credentials(
    server: ScriptedPeer, authority: Authority, monkeypatch: pytest.MonkeyPatch, status: int, what: str
) -> None:
    with Proxy({}, answers=[status] * 20) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url("eva:sesame"))
        began = time.monotonic()
        with gateway_of(logged_in(f"https://{NAME}"), authority.file, bound_seconds=3.0) as gateway:
            asking = {
                "gateway": lambda: gateway.get("/benchmarks/1", BenchmarkView),
                "asset": lambda: fetched(gateway, f"https://{NAME}/assets/a.tar.gz"),
            }
            with pytest.raises(ServerUnreachable, match=rf"{proxy.port} \(HTTPS_PROXY\).*{status}") as raised:
                asking[what]()
        # What may pass is tried again within the bound; what cannot is said at once.
        assert (len(proxy.heads) > 1) == (status == 502)
        assert time.monotonic() - began < 15
        assert "NO_PROXY" in raised.value.hint
        assert "sesame" not in str(raised.value) + raised.value.hint
        assert "eva" not in str(raised.value) + raised.value.hint


def test_plain_http_goes_through_a_proxy_too_and_its_refusals_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedPeer(script) as peer, Proxy({f"{NAME}:8000": peer.port}, login="eva:sesame") as proxy:
        for login in ("eva:sesame", "eva:wrong"):
            monkeypatch.setenv("HTTP_PROXY", proxy.url(login))
            with gateway_of(logged_in(f"http://{NAME}:8000"), allow_http=True) as gateway:
                if login == "eva:sesame":
                    assert gateway.get("/benchmarks/1", BenchmarkView).name == "chest-1"
                    assert fetched(gateway, "/assets/a.tar.gz") == CONTENT
                    continue
                for asking in (
                    lambda: gateway.get("/benchmarks/1", BenchmarkView),
                    lambda: fetched(gateway, "/assets/a.tar.gz"),
                ):
                    with pytest.raises(ServerUnreachable, match="does not accept the name and password") as raised:
                        asking()
                    assert "wrong" not in str(raised.value) + raised.value.hint
        assert len(peer.asked) == 2
        assert all("proxy-authorization" not in asked.headers for asked in peer.asked)


def test_a_change_that_the_proxy_did_not_let_through_was_surely_not_made_and_is_sent_again(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    approved = Reply.of(answers.association(1), Medperf_Version="association/1@1")
    with (
        ScriptedPeer(in_turn(approved), tls=authority.server(NAME)) as server,
        Proxy({f"{NAME}:443": server.port}, answers=[502, 503]) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy.url())
        with gateway_of(logged_in(f"https://{NAME}"), authority.file) as gateway:
            gateway.post("/associations/1/approve", AssociationDecision(), AssociationView)
        assert len(server.asked) == 1
        assert len(proxy.heads) == 3


def test_a_proxy_that_is_down_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("HTTPS_PROXY", f"http://eva:sesame@127.0.0.1:{port}")
    with gateway_of(logged_in(f"https://{NAME}"), bound_seconds=0.5) as gateway:
        for asking in (
            lambda: gateway.get("/benchmarks/1", BenchmarkView),
            lambda: fetched(gateway, f"https://{NAME}/a"),
        ):
            with pytest.raises(ServerUnreachable, match=rf"proxy 127\.0\.0\.1:{port} \(HTTPS_PROXY\)") as raised:
                asking()
            assert "sesame" not in str(raised.value) + raised.value.hint


@pytest.mark.parametrize(
    ("no_proxy", "is_used"),
    [
        ("", True),
        ("other.invalid", True),
        ("0.0.0.1,10.0.0.0/8", True),
        (f"{ELSEWHERE}:1", True),
        (ELSEWHERE, False),
        ("other.invalid, 0.0.0.0/8", False),
        ("*", False),
    ],
)
def test_no_proxy_says_who_is_reached_without_one(
    server: ScriptedPeer, authority: Authority, monkeypatch: pytest.MonkeyPatch, no_proxy: str, is_used: bool
) -> None:
    with Proxy({f"{ELSEWHERE}:{server.port}": server.port}) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url())
        monkeypatch.setenv("NO_PROXY", no_proxy)
        address = f"https://{ELSEWHERE}:{server.port}"
        with gateway_of(logged_in(address), authority.file) as gateway:
            gateway.get("/benchmarks/1", BenchmarkView)
            assert fetched(gateway, f"{address}/assets/a.tar.gz") == CONTENT
        assert len(server.asked) == 2
        assert len(proxy.heads) == (2 if is_used else 0)


@pytest.mark.parametrize(
    ("no_proxy", "host", "is_excepted"),
    [
        ("hospital.org", "hospital.org", True),
        ("hospital.org", "medperf.hospital.org", True),
        (".hospital.org", "medperf.hospital.org", True),
        ("*.hospital.org", "medperf.hospital.org", True),
        ("hospital.org", "nothospital.org", False),
        ("HOSPITAL.org", "medperf.hospital.ORG", True),
        ("hospital.org:443", "hospital.org", True),
        ("hospital.org:8443", "hospital.org", False),
        ("10.0.0.0/8", "10.20.30.40", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.0.0.0/8", "hospital.org", False),
        ("fd00::/8", "[fd12::1]", True),
        ("10.0.0.0/8", "[fd12::1]", False),
        ("a b,,c", "c", True),
        (".", "hospital.org", False),
    ],
)
def test_an_exception_covers_what_it_names(
    monkeypatch: pytest.MonkeyPatch, no_proxy: str, host: str, is_excepted: bool
) -> None:
    monkeypatch.setenv("ALL_PROXY", "proxy.invalid:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (proxy_for(f"https://{host}/a") is None) == is_excepted


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "[::1]"])
def test_this_machine_is_never_reached_through_a_proxy(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    for name in PROXY_VARIABLES:
        monkeypatch.setenv(name, "http://proxy.invalid:3128")
    assert proxy_for(f"http://{host}:8000") is None
    assert proxy_for(f"https://{host}:8000") is None
    assert proxy_for("http://elsewhere.invalid") is not None


def test_a_server_and_an_asset_on_this_machine_are_asked_for_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedPeer(script) as peer, Proxy({}) as proxy:
        for name in PROXY_VARIABLES:
            monkeypatch.setenv(name, proxy.url())
        with gateway_of(logged_in(peer.url)) as gateway:
            gateway.get("/benchmarks/1", BenchmarkView)
            fetched(gateway, "/assets/a.tar.gz")
        assert (len(peer.asked), proxy.heads) == (2, [])


@pytest.mark.parametrize(
    "value", ["socks5://eva:sesame@127.0.0.1:1", "nonsense://eva:sesame@h:1", "http://eva:ses#ame@h:1", "http://"]
)
def test_a_proxy_that_cannot_be_used_is_named_by_its_variable_alone(value: str) -> None:
    done = medperf("benchmark", "ls", MEDPERF_SERVER=f"https://{NAME}", ALL_PROXY=value)
    assert done.returncode == UsageError.exit_code
    assert "Error: The proxy that ALL_PROXY names cannot be used" in done.stderr
    assert "What to do: Give ALL_PROXY as http://" in done.stderr
    assert not any(part in done.stderr for part in ("eva", "sesame", "ses#ame"))


# A CA of the site's own


def test_a_certificate_that_is_not_trusted_is_said_at_once_and_names_the_remedy(server: ScriptedPeer) -> None:
    began = time.monotonic()
    with gateway_of(logged_in(server.url), bound_seconds=30.0) as gateway:
        for asking in (
            lambda: gateway.get("/benchmarks/1", BenchmarkView),
            lambda: gateway.download(f"{server.url}/asset", lambda _: None),
        ):
            with pytest.raises(ServerUnreachable, match="not trusted") as refused:
                asking()
            assert "--ca FILE (MEDPERF_CA)" in refused.value.hint
    assert time.monotonic() - began < 5, "it is not tried again"
    assert server.asked == []


def test_a_ca_counts_beside_the_machines_own_store(
    server: ScriptedPeer, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Authority(tmp_path / "other", "another CA")
    with ScriptedPeer(script, tls=other.server("127.0.0.1")) as assets:
        monkeypatch.setenv("SSL_CERT_FILE", str(other.file))
        with gateway_of(logged_in(server.url), authority.file) as gateway:
            gateway.get("/benchmarks/1", BenchmarkView)
            assert fetched(gateway, f"{server.url}/assets/a.tar.gz") == CONTENT
            assert fetched(gateway, f"{assets.url}/assets/a.tar.gz") == CONTENT


def test_a_ca_that_was_given_once_is_remembered_for_its_server_alone(
    server: ScriptedPeer, authority: Authority, tmp_path: Path
) -> None:
    home = logged_in(server.url)
    settings = {"MEDPERF_SERVER": server.url}
    assert medperf("benchmark", "ls", **settings).returncode == ServerUnreachable.exit_code
    # The environment is there each time: nothing is kept of it.
    assert medperf("benchmark", "ls", **settings, MEDPERF_CA=str(authority.file)).returncode == 0
    assert not (home.root / "ca.pem").exists()
    done = medperf("--ca", str(authority.file), "benchmark", "ls", **settings)
    assert done.returncode == 0, done.stderr
    authority.file.unlink()
    assert medperf("benchmark", "ls", **settings).returncode == 0
    with ScriptedPeer(script, tls=authority.server("127.0.0.1")) as another:
        logged_in(another.url)
        assert medperf("benchmark", "ls", MEDPERF_SERVER=another.url).returncode == ServerUnreachable.exit_code


def test_a_ca_given_once_is_enough_for_server_assets_and_packages(authority: Authority, tmp_path: Path) -> None:
    wheels = tmp_path / "index"
    wheels.mkdir()
    package = wheel(wheels)
    (file,) = wheels.iterdir()
    index = {
        "/simple/tiny/": Reply(
            200, f'<a href="/{file.name}">{file.name}</a>'.encode(), {"Content-Type": "text/html"}
        ),
        f"/{file.name}": Reply(200, file.read_bytes()),
    }
    site = Site(tmp_path / "site")
    manifest = manifest_of(Role.PREPARATION)
    manifest["sandbox"]["packages"] = [{"name": "tiny==1.0", "hashes": [f"sha256:{package.sha256[0]}"]}]
    program = archive_of("main.py", b"import tiny\n" + code(Role.PREPARATION))
    site.shelf.add(1, Role.PREPARATION, manifest=json.dumps(manifest), parameters="fault: \n", archive=program)
    benchmark = BenchmarkServer(site.shelf)
    with ScriptedPeer(
        lambda asked: index.get(asked.path) or benchmark(asked), tls=authority.server("127.0.0.1")
    ) as peer:
        home = Home.at(peer.url)
        settings = {
            "MEDPERF_SERVER": peer.url,
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_FIND_LINKS": "",
            "PIP_RETRIES": "0",
        }
        settings["PIP_INDEX_URL"] = f"{peer.url}/simple"
        login = ("login", "--username", "ada", "--password_stdin", "--ca", str(authority.file))
        assert medperf(*login, **settings).returncode == 0
        authority.file.unlink()
        paths = ("--data_path", str(site.data), "--labels_path", str(site.labels))
        create = ("dataset", "create", "--name", "mine", "--benchmark", "1", "--platform", "sandbox", *paths)
        done = medperf(*create, **settings)
        assert done.returncode == 0, done.stderr
        # Forgotten, it is forgotten by pip as well.
        (home.root / "ca.pem").unlink()
        shutil.rmtree(home.root / "environments")
        assert medperf(*create, **settings).returncode == ServerUnreachable.exit_code


def test_a_ca_named_in_the_environment_is_pips_for_as_long_as_it_is_named(
    server: ScriptedPeer, authority: Authority, tmp_path: Path
) -> None:
    home = logged_in(server.url)
    for_pip = home.environments / "trusted.pem"
    assert medperf("benchmark", "ls", MEDPERF_SERVER=server.url, MEDPERF_CA=str(authority.file)).returncode == 0
    assert authority.file.read_text() in for_pip.read_text()
    store = {"SSL_CERT_FILE": str(authority.file)}
    assert medperf("benchmark", "ls", MEDPERF_SERVER=server.url, **store).returncode == 0
    assert not for_pip.exists()


def test_a_remembered_ca_stays_when_the_old_folder_is_set_aside(
    server: ScriptedPeer, authority: Authority, tmp_path: Path
) -> None:
    home = logged_in(server.url)
    assert medperf("benchmark", "ls", "--ca", str(authority.file), MEDPERF_SERVER=server.url).returncode == 0
    another = Reply.of({**answers.SERVER, "store_id": str(uuid.UUID(int=8))})
    server.script = by_path({"GET /api/v1/server": another, "POST /api/v1/auth/login": Reply.of(answers.tokens())})
    done = medperf("login", "--yes", "--username", "ada", "--password_stdin", MEDPERF_SERVER=server.url)
    assert done.returncode == 0, done.stderr
    assert "The old folder is now" in done.stderr
    assert (home.root / "ca.pem").read_text() == authority.file.read_text()


def test_a_ca_whose_server_did_not_answer_is_not_remembered(tmp_path: Path, server: ScriptedPeer) -> None:
    home = logged_in(server.url)
    wrong = Authority(tmp_path / "wrong", "not that server's")
    done = medperf("benchmark", "ls", "--ca", str(wrong.file), MEDPERF_SERVER=server.url)
    assert done.returncode == ServerUnreachable.exit_code
    assert not (home.root / "ca.pem").exists()


@pytest.mark.parametrize("how", ["option", "environment"])
@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nnonsense\n", "der", "folder"])
def test_a_ca_that_is_missing_or_malformed_is_a_usage_error(
    authority: Authority, tmp_path: Path, how: str, content: bytes | str | None
) -> None:
    file = tmp_path / "given.pem"
    if content == "folder":
        file.mkdir()
    elif content is not None:
        file.write_bytes(authority.certificate.public_bytes(Encoding.DER) if isinstance(content, str) else content)
    with ScriptedPeer(script) as peer:
        logged_in(peer.url)
        given = ("--ca", str(file)) if how == "option" else ()
        settings = {"MEDPERF_CA": str(file)} if how == "environment" else {}
        done = medperf("benchmark", "ls", *given, MEDPERF_SERVER=peer.url, **settings)
        assert (done.returncode, peer.asked) == (UsageError.exit_code, [])
    assert str(file) in done.stderr
    assert "What to do: Give" in done.stderr


# Plain http


def test_plain_http_leaves_this_machine_only_when_asked_for_and_says_so_each_time(tmp_path: Path) -> None:
    with ScriptedPeer(script) as peer:
        address = f"http://{ELSEWHERE}:{peer.port}"
        logged_in(address)
        refused = medperf("benchmark", "ls", MEDPERF_SERVER=address)
        assert (refused.returncode, peer.asked) == (UsageError.exit_code, [])
        assert "--allow_http (MEDPERF_ALLOW_HTTP=1)" in refused.stderr
        for given, settings in ((("--allow_http",), {}), ((), {"MEDPERF_ALLOW_HTTP": "1"})):
            done = medperf("benchmark", "ls", *given, MEDPERF_SERVER=address, **settings)
            assert done.returncode == 0, done.stderr
            assert done.stderr == f"Warning: {address} is plain http: your login can be read on the way.\n"
        again = medperf("benchmark", "ls", MEDPERF_SERVER=address)
        assert again.returncode == UsageError.exit_code, "it is not remembered"
        strange = medperf("benchmark", "ls", MEDPERF_SERVER=address, MEDPERF_ALLOW_HTTP="yes")
        assert (strange.returncode, "neither 0 nor 1" in strange.stderr) == (UsageError.exit_code, True)
        with pytest.raises(UsageError, match="neither https nor on this machine"):
            Gateway(Home.at(address))


def test_plain_http_to_this_machine_needs_nothing(tmp_path: Path) -> None:
    with ScriptedPeer(script) as peer:
        logged_in(peer.url)
        assert medperf("benchmark", "ls", MEDPERF_SERVER=peer.url).stderr == ""


def test_an_asset_follows_the_same_rule(tmp_path: Path) -> None:
    with ScriptedPeer(script) as peer, ScriptedPeer(script) as store:
        plain = f"http://{ELSEWHERE}:{store.port}/assets/a.tar.gz"
        for script_of_peer in (None, in_turn(Reply(302, headers={"Location": plain}))):
            peer.script = script_of_peer or script
            url = plain if script_of_peer is None else "/assets/a.tar.gz"
            with (
                gateway_of(logged_in(peer.url)) as gateway,
                pytest.raises(UsageError, match="neither https nor on this machine"),
            ):
                fetched(gateway, url)
            assert store.asked == []
        notices: list[str] = []
        peer.script = script
        with gateway_of(logged_in(peer.url), allow_http=True, notice=notices.append) as gateway:
            assert fetched(gateway, plain) == CONTENT
        assert [notice.split()[0] for notice in notices] == ["Warning:", "Fetching"]


@pytest.mark.parametrize(
    "url",
    [
        *(
            "ftp://example.org/a",
            "file:///etc/passwd",
            "https:///a",
            "https://[::1/a",
            "https://example.org:nine/a",
        ),
        *("https://example.org:99999/a", "https://example.org/\x1b[31m", "https://example.org/two\nlines"),
    ],
)
def test_an_asset_is_fetched_by_http_or_https_only(url: str) -> None:
    with ScriptedPeer(script) as peer, gateway_of(logged_in(peer.url), bound_seconds=0.3) as gateway:
        with pytest.raises(UsageError, match="no http or https address"):
            fetched(gateway, url)
        if url.isprintable():  # what a header can hold
            peer.script = in_turn(Reply(302, headers={"Location": url}))
            # What is no address at all the HTTP library takes for a broken answer.
            said = "no http or https address|Invalid URL in location header"
            with pytest.raises((UsageError, ServerUnreachable), match=said):
                fetched(gateway, "/assets/a.tar.gz")


# Where the token goes


def test_a_token_goes_to_the_gateway_alone_and_to_no_asset(server: ScriptedPeer, authority: Authority) -> None:
    with ScriptedPeer(script, tls=authority.server("127.0.0.1")) as other_port:
        with gateway_of(logged_in(server.url), authority.file) as gateway:
            gateway.get("/benchmarks/1", BenchmarkView)
            for url in ("/assets/a.tar.gz", f"{server.url}/assets/a.tar.gz", f"{other_port.url}/assets/a.tar.gz"):
                assert fetched(gateway, url) == CONTENT
        assert server.asked[0].headers["authorization"] == f"Bearer {TOKEN}"
        for asked in (*server.asked[1:], *other_port.asked):
            assert not {"authorization", "cookie", "medperf-seen"} & asked.headers.keys()
            assert TOKEN not in str(asked)
        assert len(other_port.asked) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_request_follows_a_redirect_and_nothing_is_sent_again(status: int) -> None:
    with ExitStack() as stack:
        elsewhere = stack.enter_context(ScriptedPeer(in_turn(BENCHMARK)))
        to = Reply(status, headers={"Location": f"{elsewhere.url}/api/v1/benchmarks/1", "Set-Cookie": "a=b"})
        peer = stack.enter_context(ScriptedPeer(in_turn(to)))
        gateway = stack.enter_context(gateway_of(logged_in(peer.url)))
        for asking in (
            lambda: gateway.get("/benchmarks/1", BenchmarkView),
            lambda: gateway.post("/associations/1/approve", AssociationDecision(), AssociationView),
            lambda: gateway.login("ada", "sesame"),
            gateway.server,
        ):
            before = len(peer.asked)
            with pytest.raises(Refused, match=f"sends on to {elsewhere.url}.*not followed") as refused:
                asking()
            assert "--server" in refused.value.hint
            assert len(peer.asked) == before + 1
        assert elsewhere.asked == []


def test_a_refresh_that_is_redirected_keeps_the_login(tmp_path: Path) -> None:
    with ExitStack() as stack:
        elsewhere = stack.enter_context(ScriptedPeer(in_turn(Reply.of(answers.tokens(2)))))
        to = Reply(307, headers={"Location": f"{elsewhere.url}/api/v1/auth/refresh"})
        peer = stack.enter_context(
            ScriptedPeer(
                by_path(
                    {
                        "POST /api/v1/auth/refresh": to,
                        "GET /api/v1/benchmarks/1": Reply.problem(401, "token_expired"),
                    }
                )
            )
        )
        home = logged_in(peer.url)
        gateway = stack.enter_context(gateway_of(home))
        with pytest.raises(Refused, match="not followed"):
            gateway.get("/benchmarks/1", BenchmarkView)
        assert elsewhere.asked == []
        kept = Keyring(home.credentials).load()
        assert kept is not None
        assert kept.access_token == TOKEN


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_an_asset_is_followed_to_another_origin_without_a_login(status: int) -> None:
    with ScriptedPeer(script) as store, ScriptedPeer(script) as peer:
        peer.script = in_turn(
            Reply(status, headers={"Location": f"{store.url}/assets/a.tar.gz", "Set-Cookie": "session=1"})
        )
        with gateway_of(logged_in(peer.url)) as gateway:
            assert fetched(gateway, "/assets/a.tar.gz") == CONTENT
        for asked in (*peer.asked, *store.asked):
            assert not {"authorization", "cookie"} & asked.headers.keys()
        assert len(store.asked) == 1


def test_a_certificate_for_another_name_is_told_apart_from_one_that_nobody_trusts(
    tmp_path: Path, authority: Authority
) -> None:
    with ScriptedPeer(script, tls=authority.server("other.example")) as peer:
        home = logged_in(peer.url)
        with (
            gateway_of(home, authority.file) as gateway,
            pytest.raises(ServerUnreachable, match="is made for another name") as refused,
        ):
            gateway.server()
    assert "No CA mends this" in refused.value.hint


def test_plain_http_to_a_server_of_tls_is_asked_whether_its_address_is_https(
    tmp_path: Path, authority: Authority
) -> None:
    with ScriptedPeer(script, tls=authority.server("127.0.0.1")) as peer:
        home = logged_in(peer.url.replace("https://", "http://"))
        with gateway_of(home, bound_seconds=0.2) as gateway, pytest.raises(ServerUnreachable) as refused:
            gateway.server()
    assert "perhaps its address is https://" in refused.value.hint
