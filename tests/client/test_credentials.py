"""The login's tokens: kept for their owner only, and not lost between two terminals."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from medperf import seen as seen_module
from medperf.credentials import Credentials, Keyring
from medperf.files import locked
from medperf.home import Home
from medperf.seen import KEPT_SECONDS, Seen
from medperf_contracts.versions import ThingVersion
from peers import answers
from peers.scripted_peer import Asked, Reply, ScriptedPeer

LOGIN = Credentials(5, "ada", "access-1", f"refresh-1-{'x' * 20}", 0.0)

ASK = (
    "import sys; from pathlib import Path\n"
    "from medperf.api import Gateway; from medperf.home import Home\n"
    "from medperf_contracts.accounts import UserView\n"
    "print('ready', flush=True)\n"
    "sys.stdin.readline()\n"
    "with Gateway(Home(sys.argv[1], Path(sys.argv[2]))) as gateway:\n"
    "    print(gateway.get('/users/me', UserView).username)\n"
)


def test_tokens_are_for_their_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "credentials.json"
    Keyring(file).keep(LOGIN)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert Keyring(file).load() == LOGIN
    Keyring(file).forget()
    assert Keyring(file).load() is None
    assert not file.exists()


def test_a_login_in_memory_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    keyring = Keyring(None)
    keyring.keep(LOGIN)
    assert keyring.load() == LOGIN
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"access_token": "x"}', '{"unknown": 1}'])
def test_a_damaged_file_is_no_login(tmp_path: Path, content: str) -> None:
    (tmp_path / "credentials.json").write_text(content)
    assert Keyring(tmp_path / "credentials.json").load() is None


def test_two_terminals_renewing_at_once_do_not_lose_the_login(tmp_path: Path) -> None:
    """The peer renews each token once only: a second renewal by the same token would end the login."""
    used: list[str] = []
    guard = threading.Lock()

    def script(asked: Asked) -> Reply:
        if asked.path == "/api/v1/auth/refresh":
            token = asked.json["refresh_token"]
            time.sleep(1.0)  # long enough for every terminal to have asked
            with guard:
                if token in used:
                    return Reply.problem(401, "login_ended")
                used.append(token)
            return Reply.of(answers.tokens(len(used) + 1))
        return Reply.of(answers.user(), Medperf_Version="user/5@1")

    with ScriptedPeer(script) as peer:
        home = Home(peer.url, tmp_path)
        Keyring(home.credentials).keep(LOGIN)
        command = [sys.executable, "-c", ASK, peer.url, str(tmp_path)]
        terminals = [
            subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(3)
        ]
        for terminal in terminals:
            assert terminal.stdout is not None
            assert terminal.stdout.readline() == "ready\n"
        for terminal in terminals:
            assert terminal.stdin is not None
            terminal.stdin.write("now\n")
            terminal.stdin.flush()
        said = [terminal.communicate(timeout=60)[0].strip() for terminal in terminals]
    assert said == ["ada", "ada", "ada"]
    assert used == [LOGIN.refresh_token]


# The versions seen


def test_the_newest_version_seen_is_said(tmp_path: Path) -> None:
    seen = Seen(tmp_path / "seen.json")
    seen.note([ThingVersion("association", 7, 3), ThingVersion("dataset", 1, 1)])
    seen.note([ThingVersion("association", 7, 2)])
    names = ["association/7", "dataset/1", "dataset/2"]
    assert Seen(tmp_path / "seen.json").header(names) == "association/7@3, dataset/1@1"


def test_at_most_ten_are_said(tmp_path: Path) -> None:
    seen = Seen(tmp_path / "seen.json")
    seen.note(ThingVersion("dataset", number, 1) for number in range(1, 30))
    assert seen.header(f"dataset/{number}" for number in range(1, 30)).count("@") == 10


def test_what_was_seen_is_forgotten_after_ten_minutes(tmp_path: Path) -> None:
    file = tmp_path / "seen.json"
    now = time.time()
    ages = {"dataset/1": now - KEPT_SECONDS + 5, "dataset/2": now - KEPT_SECONDS - 5, "dataset/3": now + 3600}
    file.write_text(json.dumps({name: [1, when] for name, when in ages.items()}))
    assert Seen(file).header(ages) == "dataset/1@1"


def test_a_long_list_does_not_make_a_large_file(tmp_path: Path) -> None:
    seen = Seen(tmp_path / "seen.json")
    seen.note(ThingVersion("dataset", number, 1) for number in range(1, 5001))
    assert len(json.loads((tmp_path / "seen.json").read_text())) == 1000
    assert seen.header(["dataset/5000", "dataset/1"]) == "dataset/5000@1"


@pytest.mark.parametrize("content", ["", "[]", "{", '{"dataset/1": 3}', '{"dataset/1": ["x", "y"]}'])
def test_damaged_notes_are_no_failure(tmp_path: Path, content: str) -> None:
    (tmp_path / "seen.json").write_text(content)
    seen = Seen(tmp_path / "seen.json")
    assert seen.header(["dataset/1"]) == ""
    seen.note([ThingVersion("dataset", 1, 4)])
    assert seen.header(["dataset/1"]) == "dataset/1@4"


def test_notes_that_cannot_be_written_do_not_fail_what_was_done(tmp_path: Path) -> None:
    Seen(tmp_path / "not there" / "seen.json").note([ThingVersion("dataset", 1, 4)])


def test_notes_that_another_command_holds_do_not_fail_what_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seen_module, "_LOCK_WAIT_SECONDS", 0.05)
    with locked(tmp_path / "seen.lock", what="the list of versions"):
        Seen(tmp_path / "seen.json").note([ThingVersion("dataset", 1, 4)])
    assert not (tmp_path / "seen.json").exists()
