"""Where the client keeps its things, and that it is written whole and by one at a time."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from medperf.cli.main import run
from medperf.errors import Busy, StoreChanged, UsageError
from medperf.files import locked, write_atomically
from medperf.home import Home, server_url
from medperf_contracts.accounts import ServerView
from peers import answers


def view(store: int) -> ServerView:
    return ServerView.model_validate({**answers.SERVER, "store_id": uuid.UUID(int=store)})


# Which server


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://LOCALHOST:8000/", "http://localhost:8000"),
        ("http://127.0.0.1", "http://127.0.0.1"),
        ("http://127.0.0.1:80", "http://127.0.0.1"),
        ("http://[::1]:8001", "http://[::1]:8001"),
        ("https://medperf.example.org:443/", "https://medperf.example.org"),
        ("https://medperf.example.org:8443", "https://medperf.example.org:8443"),
    ],
)
def test_a_servers_address_has_one_form(given: str, meant: str) -> None:
    assert server_url(given) == meant


@pytest.mark.parametrize(
    "given",
    [
        "localhost:8000",
        "ftp://localhost",
        "http://",
        "http://localhost:0",
        "http://localhost:99999",
        "http://localhost:8000/medperf",
        "http://localhost:8000?x=1",
        "http://ada:secret@localhost:8000",
        "http://local host:8000",
        "http://../../etc",
        "http://[::1",
    ],
)
def test_what_is_no_servers_address_is_refused(given: str) -> None:
    with pytest.raises(UsageError, match="is not a server's address"):
        server_url(given)


@pytest.mark.parametrize("given", ["http://example.org", "http://10.0.0.1:8000", "http://localhost.example.org"])
def test_plain_http_leaves_this_machine_for_nobody(given: str) -> None:
    with pytest.raises(UsageError, match="readable"):
        server_url(given)


def test_the_option_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MEDPERF_SERVER", raising=False)
    assert server_url(None) == "http://localhost:8000"
    monkeypatch.setenv("MEDPERF_SERVER", "https://medperf.example.org")
    assert server_url(None) == "https://medperf.example.org"
    assert server_url("http://localhost:1") == "http://localhost:1"


# Which folder


@pytest.mark.parametrize(
    ("server", "name"),
    [
        ("http://localhost:8000", "localhost_8000"),
        ("https://medperf.example.org", "medperf.example.org_443"),
        ("http://[::1]:8000", "ipv6---1_8000"),
    ],
)
def test_each_server_has_its_folder(
    server: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDPERF_HOME", str(tmp_path))
    assert Home.at(server).root == tmp_path / name
    monkeypatch.delenv("MEDPERF_HOME")
    monkeypatch.setenv("HOME", "/home/ada")
    assert Home.at(server).root == Path("/home/ada/.medperf") / name


def test_nobody_else_may_enter_the_folder(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        home = Home("http://localhost:8000", tmp_path / "a" / "b")
        folders = [home.datasets, home.results, home.assets, home.environments, home.containers, home.runs]
    finally:
        os.umask(before)
    for folder in (*folders, home.root, home.root.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_file_where_the_folder_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(UsageError, match="taken/localhost_8000/datasets cannot be made"):
        Home("http://localhost:8000", tmp_path / "taken" / "localhost_8000").datasets  # noqa: B018


@pytest.mark.parametrize("place", ["/proc/x", "/dev/null/x", f"/tmp/{'x' * 300}"])
@pytest.mark.parametrize("command", ["benchmark ls", "dataset ls --local", "tutorial data", "auth status"])
def test_a_folder_that_cannot_be_made_for_any_reason_is_a_clear_error(
    home_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    place: str,
    command: str,
) -> None:
    monkeypatch.setenv("MEDPERF_HOME", place)
    assert run(command.split()) == UsageError.exit_code
    said = capsys.readouterr().err
    assert "cannot be made" in said
    assert "MEDPERF_HOME" in said


def test_a_folder_belongs_to_the_first_store_it_met(tmp_path: Path) -> None:
    home = Home("http://localhost:8000", tmp_path / "localhost_8000")
    home.check_store(view(1))
    home.check_store(view(1))
    with pytest.raises(StoreChanged, match="another store"):
        home.check_store(view(2))


def test_a_folder_that_is_set_aside_is_kept_whole_and_makes_way(tmp_path: Path) -> None:
    home = Home("http://localhost:8000", tmp_path / "localhost_8000")
    kept = []
    for store in (1, 2, 3):
        home.check_store(view(store))
        (home.datasets / f"of-{store}").touch()
        kept.append(home.set_aside())
    assert len(set(kept)) == 3
    for store, folder in zip((1, 2, 3), kept, strict=True):
        assert folder.name.startswith("localhost_8000.set-aside-20")
        assert [path.name for path in (folder / "datasets").iterdir()] == [f"of-{store}"]


# Small files


def test_a_file_is_for_its_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_atomically(tmp_path / "secret", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_a_file_that_cannot_be_written_whole_stays_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_atomically(file, "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_atomically(file, "n" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_writer_that_dies_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_atomically(file, "0" * 200_000)
    program = (
        "import sys; from pathlib import Path; from medperf.files import write_atomically\n"
        "number = 0\n"
        "while True:\n"
        "    number = (number + 1) % 10\n"
        "    write_atomically(Path(sys.argv[1]), str(number) * 200_000)\n"
        "    print(number, flush=True)\n"
    )
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", program, str(file)], cwd=tmp_path, stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            for _ in range(5):
                writer.stdout.readline()
            writer.kill()
        content = file.read_text()
        assert content == content[0] * 200_000


HOLD = (
    "import sys, time; from pathlib import Path; from medperf.files import locked\n"
    "with locked(Path(sys.argv[1]), what='it'):\n"
    "    print('held', flush=True)\n"
    "    time.sleep(60)\n"
)


def test_a_lock_is_held_by_one_and_named_to_the_other(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], cwd=tmp_path, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with (
            pytest.raises(Busy, match=rf"working on the dataset \(process {holder.pid}\)"),
            locked(lock, what="the dataset"),
        ):
            pass
        holder.send_signal(signal.SIGKILL)
        with locked(lock, what="the dataset", wait_seconds=5):
            pass
