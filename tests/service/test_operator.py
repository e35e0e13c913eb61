"""The operator's `user` commands: the same on a running server and on a stopped one's store."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pexpect
import pytest

from medperf_contracts.access import SERVICES
from service.served import COMMAND_SECONDS, PROGRAM, Start, environment, refused, run
from services.embedded import operator as operators
from services.embedded.operator import operator_of
from services.embedded.store import Store, StoreError, StoreInUse

PASSWORD, ANOTHER = "sesame-sesame", "another-sesame"
SEED_PEOPLE = ("testadmin", "testbenchmarkowner", "testmodelowner", "testdataowner")


def did(home: Path, *arguments: str, typed: str = "") -> str:
    """What a command says that does what it was asked."""
    done = run(home, "user", *arguments, typed=typed)
    assert done.returncode == 0, done
    assert done.stderr == "", "nothing but its answer"
    return done.stdout


def added(home: Path, name: str, *options: str) -> str:
    return did(home, "add", name, "--password-stdin", *options, typed=f"{PASSWORD}\n")


def accounts(home: Path) -> dict[str, dict[str, Any]]:
    return {account["username"]: account for account in json.loads(did(home, "ls", "--json"))}


def log_in(url: str, name: str, password: str = PASSWORD) -> httpx.Response:
    body = {"username": name, "password": password}
    return httpx.post(f"{url}/api/v1/auth/login", json=body, trust_env=False, timeout=30)


@pytest.mark.parametrize("is_running", [True, False], ids=["running", "stopped"])
def test_an_operator_keeps_accounts_whether_the_server_runs_or_not(
    home: Path, up: Start, is_running: bool
) -> None:
    if is_running:
        up()
    assert added(home, "root", "--admin") == "Added administrator root (ID 1).\n"
    assert added(home, "ada") == "Added user ada (ID 2).\n"
    assert "There is a user 'ada' already." in refused(
        home, "user", "add", "ada", "--password-stdin", typed=f"{PASSWORD}\n"
    )
    going_on = "may go on for up to 16 minutes, an administrator's decisions too"
    assert going_on in did(home, "disable", "ada")
    assert "last active administrator" in refused(home, "user", "disable", "root")
    assert "There is no account 'eve'" in refused(home, "user", "disable", "eve")
    assert going_on in did(home, "set-password", "ada", "--password-stdin", typed=f"{ANOTHER}\n")
    did(home, "make-admin", "ada")
    assert did(home, "ls").splitlines()[1:] == [
        f"1   root  administrator  active    {accounts(home)['root']['created_at'][:10]}",
        f"2   ada   administrator  disabled  {accounts(home)['ada']['created_at'][:10]}",
    ]
    did(home, "enable", "ada")
    did(home, "disable", "root")
    shown = accounts(home)
    assert [(name, view["is_admin"], view["is_active"]) for name, view in shown.items()] == [
        ("root", True, False),
        ("ada", True, True),
    ]
    assert "password" not in json.dumps(shown)
    url = up().url if not is_running else str(Store(home).running().url)  # type: ignore[union-attr]
    assert log_in(url, "root").json()["code"] == "account_disabled"
    assert log_in(url, "ada").json()["code"] == "wrong_credentials"
    assert log_in(url, "ada", ANOTHER).status_code == 200


def test_the_first_administrator_is_made_without_a_socket(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def connect(self: socket.socket, address: object) -> None:
        asked.append(str(address))
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket.socket, "bind", connect)
    with operator_of(Store(home)) as caller:
        body = {"username": "root", "password": PASSWORD, "is_admin": True}
        assert caller.post("users", body).body["is_admin"] is True
        with pytest.raises(StoreInUse), Store(home).locked():
            pass  # the store is ours alone meanwhile
    assert asked == []
    databases = {f"{service}.db" for service in SERVICES}
    assert {path.name for path in home.iterdir()} == {"lock", "server.log"} | databases


def test_a_command_waits_for_a_server_that_has_the_store_and_does_not_listen_yet(home: Path) -> None:
    store = Store(home)
    released = threading.Event()

    def hold() -> None:
        with store.locked():
            released.set()
            time.sleep(1)

    holder = threading.Thread(target=hold)
    holder.start()
    released.wait(10)
    added(home, "ada")
    holder.join()
    assert list(accounts(home)) == ["ada"]


def test_a_store_that_stays_in_use_is_an_error_and_not_a_wait_for_ever(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operators, "STORE_WAIT_SECONDS", 0.3)
    with Store(home).locked(), pytest.raises(StoreError, match="in use"), operator_of(Store(home)):
        pass


@pytest.mark.parametrize("is_running", [True, False], ids=["running", "stopped"])
def test_no_account_of_the_seed_exists_on_a_server_that_was_not_seeded(
    home: Path, up: Start, is_running: bool
) -> None:
    server = up()
    for name in SEED_PEOPLE:
        assert log_in(server.url, name, "test").json()["code"] == "wrong_credentials"
    if not is_running:
        server.stop(signal.SIGTERM)
    assert accounts(home) == {}
    added(home, "ada")
    assert list(accounts(home)) == ["ada"]


def test_a_short_password_is_refused_and_no_account_is_made(home: Path) -> None:
    added(home, "root")
    said = refused(home, "user", "add", "ada", "--password-stdin", typed="seven77\n")
    assert "at least 8 characters" in said
    assert list(accounts(home)) == ["root"]
    assert "at least 8" in refused(home, "user", "set-password", "root", "--password-stdin", typed="seven77\n")


def test_a_piped_password_is_a_line_of_text_however_it_ends(home: Path, up: Start) -> None:
    server = up()
    did(home, "add", "ada", "--password-stdin", typed=f"{PASSWORD}\r\n")
    assert log_in(server.url, "ada").status_code == 200
    for typed, says in (
        ("\n", "at least 8 characters"),
        ("", "There is no password"),
        ("\udcff\udcfe", "not text in"),
    ):
        for command in (("add", "eve"), ("set-password", "ada")):
            assert says in refused(home, "user", *command, "--password-stdin", typed=typed)
    assert list(accounts(home)) == ["ada"]


def test_a_name_that_no_account_can_have_is_refused_before_a_password_is_asked_for(home: Path) -> None:
    for name in ("ada lovelace", "Åda", "-", ".ada", "x" * 65, "ada\u200b", "ada\n"):
        assert "letters without accents, digits" in refused(home, "user", "add", "--", name)
    assert not home.exists()


def test_without_a_terminal_a_password_is_given_on_standard_input_or_not_at_all(home: Path) -> None:
    assert "--password-stdin" in refused(home, "user", "add", "ada")
    assert not home.exists()


def test_looking_at_a_store_that_is_not_there_makes_none(home: Path) -> None:
    for command in (["ls"], ["disable", "ada"]):
        assert "user add NAME --admin" in refused(home, "user", *command)
    assert not home.exists()


def test_a_password_is_typed_twice_and_not_shown(home: Path) -> None:
    terminal = pexpect.spawn(
        sys.executable,
        [*PROGRAM, "user", "add", "ada", "--admin"],
        env=environment(home),
        encoding="utf-8",
        timeout=COMMAND_SECONDS,
    )
    for first, second in ((PASSWORD, ANOTHER), (PASSWORD, PASSWORD)):
        terminal.expect("Password for ada .at least 8 characters.: ")
        terminal.sendline(first)
        terminal.expect("The same again: ")
        terminal.sendline(second)
    terminal.expect(r"Added administrator ada \(ID 1\)")
    said = str(terminal.before)
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    assert PASSWORD not in said


def test_what_the_operator_does_to_a_stopped_store_is_in_its_log(home: Path) -> None:
    added(home, "ada")
    did(home, "disable", "ada")
    lines = [json.loads(line) for line in (home / "server.log").read_text().splitlines()]
    commands = [line["endpoint"] for line in lines if line["endpoint"].startswith("POST")]
    assert commands == ["POST /api/v1/users", "POST /api/v1/users/{user_id}/disable"]
    with sqlite3.connect(home / "accounts.db") as database:
        (kept,) = database.execute("SELECT password_hash FROM users").fetchone()
    database.close()
    assert kept.startswith("$argon2id$")
    assert {path.name: path.stat().st_mode & 0o077 for path in home.iterdir() if path.stat().st_mode & 0o077} == {}


def test_a_server_that_went_away_is_an_error_with_a_hint(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    store = Store(home)
    with store.locked():
        store.write_operator_token()
        store.announce(url, certificate=None)
        (home / "accounts.db").touch()
        assert f"The server at {url}" in refused(home, "user", "ls")
