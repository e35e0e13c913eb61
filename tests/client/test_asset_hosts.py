"""A registered address is chosen by somebody else: where it may lead the site's machine, and where it may not."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from medperf.api import Gateway
from medperf.asset_hosts import Nearness, check_host, nearness
from medperf.errors import ServerUnreachable, UsageError
from medperf.home import Home
from medperf.network import Network
from peers.certificates import Authority
from peers.proxy import Proxy
from peers.scripted_peer import Reply, ScriptedPeer, by_path, in_turn

# Names that no resolver knows.
GATEWAY = "https://medperf.hospital.invalid"
STORE = "files.example.invalid"
CONTENT = b"weights" * 1000
REPLIES = {"GET /a.tar.gz": Reply(200, CONTENT), "GET /api/shutdown?now=1": Reply(200, b"going down")}
PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*PROXIES, "NO_PROXY", "no_proxy", "MEDPERF_CA", "MEDPERF_ALLOW_HTTP", "MEDPERF_ALLOW_HOSTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MEDPERF_HOME", str(tmp_path / "home"))


@pytest.fixture
def on_this_machine() -> Iterator[ScriptedPeer]:
    """What listens on loopback and trusts whoever is there."""
    with ScriptedPeer(by_path(REPLIES)) as peer:
        yield peer


def gateway_of(address: str, ca: Path | None = None, notices: list[str] | None = None) -> closing[Gateway]:
    home = Home.at(address)
    network = Network.of(home.root, ca=str(ca) if ca else None, allow_http=True)
    notice = (lambda _: None) if notices is None else notices.append
    return closing(Gateway(home, network=network, bound_seconds=1.0, notice=notice))


def fetched(gateway: Gateway, url: str) -> bytes:
    received = bytearray()
    gateway.download(url, received.extend)
    return bytes(received)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "LOCALHOST.", "0.0.0.0", "127.1", "2130706433", "[::ffff:127.0.0.1]"]
)
def test_a_server_elsewhere_cannot_have_this_machine_asked_for_anything(
    on_this_machine: ScriptedPeer, host: str
) -> None:
    with gateway_of(GATEWAY) as gateway, pytest.raises(UsageError, match="on this machine, and the server is not"):
        fetched(gateway, f"http://{host}:{on_this_machine.port}/api/shutdown?now=1")
    assert on_this_machine.asked == []


def test_nor_by_a_redirect(on_this_machine: ScriptedPeer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path / "authority")
    to = Reply(302, headers={"Location": f"http://127.0.0.1:{on_this_machine.port}/api/shutdown?now=1"})
    with (
        ScriptedPeer(in_turn(to), tls=authority.server("medperf.hospital.invalid")) as server,
        Proxy({"medperf.hospital.invalid:443": server.port}) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy.url())
        with gateway_of(GATEWAY, authority.file) as gateway, pytest.raises(UsageError, match="on this machine"):
            fetched(gateway, "/a.tar.gz")
        assert len(server.asked) == 1
    assert on_this_machine.asked == []


def test_nor_by_a_name_that_leads_here(on_this_machine: ScriptedPeer, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, "127.0.0.1")
    with gateway_of(GATEWAY) as gateway, pytest.raises(UsageError, match="on this machine"):
        fetched(gateway, f"http://{STORE}:{on_this_machine.port}/a.tar.gz")
    assert on_this_machine.asked == []


def test_a_server_on_this_machine_may_name_others_on_it(on_this_machine: ScriptedPeer) -> None:
    with gateway_of("http://localhost:1") as gateway:
        assert fetched(gateway, f"{on_this_machine.url}/a.tar.gz") == CONTENT


def test_a_name_is_looked_up_once_and_the_certificate_is_still_the_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "authority")
    monkeypatch.setenv("MEDPERF_ALLOW_HOSTS", STORE)
    with (
        ScriptedPeer(by_path(REPLIES), tls=authority.server(STORE)) as store,
        ScriptedPeer(by_path(REPLIES), tls=authority.server("other.invalid")) as other,
    ):
        # The first of its addresses does not answer.
        asked = resolve(monkeypatch, "127.255.255.254", "127.0.0.1")
        with gateway_of(GATEWAY, authority.file) as gateway:
            assert fetched(gateway, f"https://{STORE}:{store.port}/a.tar.gz") == CONTENT
            assert asked == [STORE]
            assert store.asked[0].headers["host"] == f"{STORE}:{store.port}"
            with pytest.raises(ServerUnreachable, match="made for another name"):
                fetched(gateway, f"https://{STORE}:{other.port}/a.tar.gz")
        assert other.asked == []


def test_a_host_that_is_not_the_servers_is_named_before_it_is_asked(on_this_machine: ScriptedPeer) -> None:
    told: list[str] = []
    asked_when_told: list[int] = []

    class Notices(list[str]):
        def append(self, text: str) -> None:
            told.append(text)
            asked_when_told.append(len(on_this_machine.asked))

    with ScriptedPeer(by_path(REPLIES)) as server, gateway_of(server.url, notices=Notices()) as gateway:
        fetched(gateway, "/a.tar.gz")
        assert told == []
        server.script = in_turn(Reply(302, headers={"Location": f"{on_this_machine.url}/a.tar.gz"}))
        fetched(gateway, "/a.tar.gz")
    assert told == [f"Fetching from {on_this_machine.url}; your login does not go there."]
    assert asked_when_told == [0]


PRIVATE = "https://10.1.2.3/a"


@pytest.mark.parametrize(
    ("url", "gateway", "allowed", "passes"),
    [
        (PRIVATE, GATEWAY, "", False),
        ("https://169.254.169.254/latest/meta-data", GATEWAY, "", False),
        ("https://[fd00::5]/a", GATEWAY, "", False),
        ("https://100.64.0.1/a", GATEWAY, "", False),
        ("https://intranet/a", GATEWAY, "", False),
        ("https://pacs.hospital.local/a", GATEWAY, "", False),
        ("https://8.8.8.8/a", GATEWAY, "", True),
        (PRIVATE, "https://10.9.9.9", "", True),
        (PRIVATE, "https://medperf.hospital.internal", "", True),
        ("https://127.0.0.1/a", "https://10.9.9.9", "", False),
        (PRIVATE, "http://localhost:8000", "", True),
        (PRIVATE, GATEWAY, "10.0.0.0/8", True),
        (PRIVATE, GATEWAY, "other, 10.1.2.3:443", True),
        (PRIVATE, GATEWAY, "10.1.2.3:8443", False),
        ("https://pacs.hospital.local/a", GATEWAY, "hospital.local", True),
        ("https://127.0.0.1/a", GATEWAY, "127.0.0.1", True),
        (f"{GATEWAY}:443/a", GATEWAY, "", True),
    ],
)
def test_private_addresses_are_for_private_servers_and_where_the_site_says_so(
    monkeypatch: pytest.MonkeyPatch, url: str, gateway: str, allowed: str, passes: bool
) -> None:
    monkeypatch.setenv("MEDPERF_ALLOW_HOSTS", allowed)
    # A proxy resolves names itself: it must not be a way around.
    for has_proxy in (True, False) if "local/" not in url and "intranet" not in url else (True,):
        if passes:
            check_host(url, gateway=gateway, has_proxy=has_proxy)
        else:
            with pytest.raises(UsageError, match="the server is not") as refused:
                check_host(url, gateway=gateway, has_proxy=has_proxy)
            assert "MEDPERF_ALLOW_HOSTS=" in refused.value.hint


def test_one_private_address_of_several_is_enough_to_refuse_and_not_enough_to_be_a_private_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolve(monkeypatch, "8.8.8.8", "10.1.2.3")
    for url, gateway in ((f"https://{STORE}/a", "https://8.8.4.4"), (PRIVATE, GATEWAY)):
        with pytest.raises(UsageError, match="in a private network"):
            check_host(url, gateway=gateway, has_proxy=False)
    resolve(monkeypatch, "10.0.0.1")
    assert check_host(f"https://{STORE}/a", gateway=GATEWAY, has_proxy=False) == ["10.0.0.1"]
    monkeypatch.setenv("MEDPERF_ALLOW_HOSTS", "10.0.0.0/8")
    assert check_host(f"https://{STORE}/a", gateway="https://8.8.4.4", has_proxy=False) == ["10.0.0.1"]


@pytest.mark.parametrize(
    ("address", "near"),
    [
        ("64:ff9b::10.0.0.1", Nearness.PRIVATE),
        ("64:ff9b::8.8.8.8", Nearness.PUBLIC),
        ("2002:7f00:1::", Nearness.THIS_MACHINE),
        ("::", Nearness.THIS_MACHINE),
        ("0.1.2.3", Nearness.THIS_MACHINE),
        ("224.0.1.1", Nearness.PRIVATE),
        ("fe80::1", Nearness.PRIVATE),
        ("2606:4700::1111", Nearness.PUBLIC),
    ],
)
def test_an_address_is_as_near_as_where_it_leads(address: str, near: Nearness) -> None:
    assert nearness(ipaddress.ip_address(address)) is near


def resolve(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Have the machine's resolver, which is not ours, give these for names; the names that it is asked for."""
    real, asked = socket.getaddrinfo, []

    def answer(host: str, port: int, *args: object, **kwargs: object) -> list[object]:
        if not host.endswith(".invalid"):
            return real(host, port, *args, **kwargs)  # type: ignore[arg-type, return-value]
        asked.append(host)
        return [row for address in addresses for row in real(address, port, type=socket.SOCK_STREAM)]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return asked
