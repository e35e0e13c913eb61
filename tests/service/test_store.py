"""The embedded server as its operator has it: real processes, one store, what each command refuses."""

from __future__ import annotations

import json
import signal
import socket
import stat
import sys
import time
from pathlib import Path

import httpx
import pexpect
import pytest

from service.served import ADA, COMMAND_SECONDS, PROGRAM, STOP_SECONDS, Start, environment, refused, run
from services.embedded.server import listen, serve
from services.embedded.store import Store, StoreError

# Start, stop, start again


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_stops_in_order_although_a_client_stays_connected(up: Start, by: signal.Signals) -> None:
    server = up()
    with httpx.Client(base_url=server.url, trust_env=False) as connected:
        assert connected.get("/api/v1/server").json()["is_embedded"] is True
        began = time.monotonic()
        assert server.stop(by) == 0
        assert time.monotonic() - began < STOP_SECONDS
    assert "Stopped." in server.terminal.before
    assert "Traceback" not in server.terminal.before


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
def test_everything_is_there_after_a_restart(up: Start, by: signal.Signals) -> None:
    before = up()
    before.post_as_operator("users", ADA)
    store_id = before.get_store_id()
    login = {name: ADA[name] for name in ("username", "password")}
    answer = httpx.post(f"{before.url}/api/v1/auth/login", json=login, trust_env=False)
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    before.stop(by)

    after = up()
    assert after.get_store_id() == store_id
    me = httpx.get(f"{after.url}/api/v1/users/me", headers=headers, trust_env=False)
    assert me.raise_for_status().json()["username"] == "ada"


def test_a_server_that_could_not_start_says_so(home: Path) -> None:
    def fails(url: str) -> None:
        raise OSError("no space left")

    store = Store(home)
    with store.locked(), pytest.raises(StoreError, match="did not start"):
        serve(store, host="127.0.0.1", port=0, disorder_seed=None, on_ready=fails)


def test_what_a_request_says_of_whom_it_was_forwarded_for_is_not_believed(up: Start) -> None:
    """Where a caller could name the address that they call from, they could name the server's own."""
    server = up()
    forwarded = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}
    answer = server.post("users", ADA, server.operator_token(), forwarded)
    assert answer.status_code == 201, "the operator calls from this machine, whatever the header says"


def test_an_asset_is_served_and_nothing_that_lies_elsewhere(home: Path, up: Start) -> None:
    server = up()
    (home / "assets" / "demo.txt").write_text("to be seen")
    (home / "assets" / "link.txt").symlink_to(home / "signing_key.json")

    def get(path: str) -> httpx.Response:
        return httpx.get(f"{server.url}/assets/{path}", trust_env=False)

    assert get("demo.txt").text == "to be seen"
    for path in ("link.txt", "", "nothing.txt"):
        answer = get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "no_such_address"), path
    for path in ("..%2fsigning_key.json", "%2e%2e/signing_key.json"):
        answer = get(path)
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_request"), path


def test_a_server_in_disorder_delivers_some_events_twice_and_parks_none(home: Path, up: Start) -> None:
    server = up("--disorder", "7")
    server.post_as_operator("users", ADA)
    login = {name: ADA[name] for name in ("username", "password")}
    answer = httpx.post(f"{server.url}/api/v1/auth/login", json=login, trust_env=False).raise_for_status()
    for number in range(20):
        container = {"name": f"c{number}", "manifest": f"name: c{number}"}
        server.post("containers", container, answer.json()["access_token"]).raise_for_status()

    def outcomes() -> list[str]:
        lines = (json.loads(line) for line in (home / "server.log").read_text().splitlines())
        return [line["outcome"] for line in lines if line["event"] == "delivery"]

    consumers = 2
    ends = time.monotonic() + 30
    while outcomes().count("handled") < 20 * consumers and time.monotonic() < ends:
        time.sleep(0.1)
    assert outcomes().count("handled") == 20 * consumers
    assert set(outcomes()) == {"handled", "handled_before"}


# One process has the store


def test_a_second_server_is_refused_and_the_first_is_named(home: Path, up: Start) -> None:
    first = up()
    token = first.operator_token()
    said = refused(home, "up", "--port", "0")
    assert f"process {first.pid} ({first.url})" in said
    assert first.operator_token() == token
    assert first.get_store_id()


def test_a_taken_port_is_a_clear_error(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(home, "up", "--port", str(port))
    assert f"Cannot listen on 127.0.0.1:{port}: Address already in use." in said
    assert "--port" in said


def test_another_machines_address_is_a_clear_error(home: Path) -> None:
    assert "Cannot listen on 192.0.2.1:0" in refused(home, "up", "--host", "192.0.2.1", "--port", "0")


def test_a_home_that_is_no_folder_is_a_clear_error(home: Path) -> None:
    home.write_text("not a folder")
    assert str(home) in refused(home, "up", "--port", "0")


# The operator's token


def test_the_operators_token_is_private_and_new_at_each_start(home: Path, up: Start) -> None:
    first = up()
    old = first.operator_token()
    assert mode(home) == 0o700
    assert mode(home / "operator.token") == 0o600
    assert mode(home / "signing_key.json") == 0o600
    first.stop(signal.SIGTERM)
    (home / "operator.token").chmod(0o644)

    second = up()
    assert mode(home / "operator.token") == 0o600
    assert second.operator_token() != old
    assert second.post("users", ADA, old).status_code == 401
    assert second.post("users", ADA, second.operator_token()).status_code == 201


def test_what_a_store_keeps_is_its_operators_alone_whatever_the_folders_mode(home: Path, up: Start) -> None:
    home.mkdir(mode=0o755)
    up()
    kept = [path for path in home.iterdir() if path.is_file()]
    assert {"accounts.db", "results.db", "server.log"} <= {path.name for path in kept}
    assert {path.name: mode(path) & 0o077 for path in kept if mode(path) & 0o077} == {}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Seeding


def test_only_a_running_server_is_seeded(home: Path) -> None:
    said = refused(home, "seed", "--demo", "data")
    assert f"No server runs on the store {home}." in said
    assert "medperf-server up" in said
    assert not home.exists()


def test_a_store_whose_server_was_killed_has_no_running_server(home: Path, up: Start) -> None:
    """The lock's text still names the process: it is the lock that says whether it lives."""
    up().stop(signal.SIGKILL)
    assert "No server runs on the store" in refused(home, "seed", "--demo", "data")


def test_a_server_that_has_accounts_is_not_seeded(home: Path, up: Start) -> None:
    server = up()
    server.post_as_operator("users", ADA)
    assert "medperf-server reset" in refused(home, "seed", "--demo", "data")
    demo_login = {"username": "testadmin", "password": "test"}
    assert httpx.post(f"{server.url}/api/v1/auth/login", json=demo_login, trust_env=False).status_code == 401


def test_a_server_that_a_network_reaches_is_not_seeded(home: Path, up: Start) -> None:
    up("--host", "0.0.0.0")
    assert "127.0.0.1" in refused(home, "seed", "--demo", "data")


def test_a_seeded_store_is_not_shown_to_a_network(home: Path, up: Start) -> None:
    server = up()
    server.post_as_operator("server/seeding", {"demo": "data"})
    server.stop(signal.SIGTERM)
    said = refused(home, "up", "--host", "0.0.0.0", "--port", "0")
    assert "not shown on 0.0.0.0" in said
    assert "medperf-server reset" in said

    assert run(home, "reset", "--yes").returncode == 0
    assert up("--host", "0.0.0.0").url.startswith("http://0.0.0.0:")


# Reset


def test_reset_is_refused_while_the_server_runs(home: Path, up: Start) -> None:
    server = up()
    store_id = server.get_store_id()
    there = sorted(home.iterdir())
    assert f"process {server.pid} ({server.url})" in refused(home, "reset", "--yes")
    assert sorted(home.iterdir()) == there
    assert server.get_store_id() == store_id


def test_reset_needs_a_yes(home: Path, up: Start) -> None:
    up().stop(signal.SIGTERM)
    there = contents(home)
    assert "--yes" in refused(home, "reset")
    assert contents(home) == there

    terminal = pexpect.spawn(
        sys.executable, [*PROGRAM, "reset"], env=environment(home), encoding="utf-8", timeout=COMMAND_SECONDS
    )
    terminal.expect(r"Remove them\? \[y/N\]: ")
    assert str(home / "accounts.db") in terminal.before
    terminal.sendline("")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 1
    assert contents(home) == there


def test_reset_removes_what_a_server_made_and_nothing_else(home: Path, up: Start) -> None:
    killed = up()
    store_id = killed.get_store_id()
    killed.stop(signal.SIGKILL)
    (home / "server.log.1").write_text("an older log of the server")
    mine = {"notes.txt", "registry.db.backup", "server.log.mine", "server.log.9"}
    for name in mine:
        (home / name).write_text("mine")

    done = run(home, "reset", "--yes")
    assert done.returncode == 0, done
    assert set(contents(home)) == mine | {"lock"}
    assert all(contents(home)[name] == b"mine" for name in mine)
    assert "Nothing to remove" in run(home, "reset", "--yes").stdout
    assert up().get_store_id() != store_id


def test_an_interrupted_reset_leaves_nobodys_things_without_their_owner(home: Path) -> None:
    home.mkdir()
    services = ("accounts", "registry", "associations", "results", "notifications")
    for name in [f"{service}.db" for service in services] + ["signing_key.json", "server.log"]:
        (home / name).write_text("")
    order = [path.name for path in Store(home).contents()]
    # What names a person goes after all that belongs to them.
    assert order[-2:] == ["accounts.db", "signing_key.json"]
    assert order.index("registry.db") > max(order.index(f"{name}.db") for name in services[2:])


def test_reset_leaves_what_a_link_leads_to(home: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.txt").write_text("mine")
    home.mkdir()
    (home / "assets").symlink_to(elsewhere)
    assert run(home, "reset", "--yes").returncode == 0
    assert (elsewhere / "mine.txt").read_text() == "mine"
    assert not (home / "assets").is_symlink()


def test_reset_of_no_store_makes_none(home: Path) -> None:
    done = run(home, "reset", "--yes")
    assert (done.returncode, done.stdout) == (0, f"Nothing to remove: there is no {home}.\n")
    assert not home.exists()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under the folder. The lock's text says who has it, and is not kept."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): b"" if path.name == "lock" else path.read_bytes() for path in files}


def test_an_address_that_is_not_this_machines_is_told_apart_from_a_port_that_is_taken() -> None:
    for host in ("192.0.2.1", "no-such-host.invalid"):
        with pytest.raises(StoreError, match="Cannot listen on") as refused:
            listen(host, 0)
        assert "--host an address of this machine" in refused.value.hint
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(StoreError) as refused:
            listen("127.0.0.1", taken.getsockname()[1])
        assert "Choose another port" in refused.value.hint
