"""The local folder under several commands: shared while they work, alone for whoever moves or removes it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect
import pytest

from medperf import folder_lock
from medperf.causes import Cause
from medperf.cli.main import run
from medperf.credentials import Credentials, Keyring
from medperf.datasets import LocalDataset, Source, local_datasets
from medperf.home import Home
from medperf.journal import Journal, RunState
from medperf.tutorial.clean import find_leavings, remove
from medperf.tutorial.files import TutorialFolder, find_folder, make_folder
from peers import answers
from peers.kept import local_dataset, local_result
from peers.runs import open_run
from peers.scripted_peer import Asked, Reply, ScriptedPeer

MEDPERF = str(Path(sys.executable).with_name("medperf"))
BUSY, STORE_CHANGED = 12, 11


class Server:
    """A server that keeps whoever lists datasets waiting for as long as a test wants."""

    def __init__(self) -> None:
        self.store_id = answers.STORE
        self.asked = threading.Event()
        self.answer = threading.Event()
        self.answer.set()
        self.on_login: Callable[[], object] = lambda: None

    def __call__(self, asked: Asked) -> Reply:
        if asked.path == "/api/v1/server":
            return Reply.of({**answers.SERVER, "store_id": self.store_id})
        if asked.path == "/api/v1/auth/login":
            self.on_login()
            return Reply.of(answers.tokens())
        self.asked.set()
        assert self.answer.wait(30)
        return Reply.of(answers.page())


@pytest.fixture
def server(home_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    answering = Server()
    with ScriptedPeer(answering) as peer:
        monkeypatch.setenv("MEDPERF_SERVER", peer.url)
        Keyring(Home.at(peer.url).credentials).keep(Credentials(5, "ada", "access-1", "r" * 20, 9e12))
        yield answering
        answering.answer.set()


@pytest.fixture
def home(server: Server) -> Home:
    return Home.at(os.environ["MEDPERF_SERVER"])


@contextmanager
def working(server: Server) -> Iterator[subprocess.Popen[str]]:
    """Another command that is in the middle of its work, with no container running."""
    server.answer.clear()
    server.asked.clear()
    with subprocess.Popen(
        [MEDPERF, "dataset", "ls"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as other:
        assert server.asked.wait(20)
        try:
            yield other
        finally:
            server.answer.set()


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tutorial's folder."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MEDPERF_HOME", str(tmp_path_factory.mktemp("home")))
        return make_folder(tmp_path_factory.mktemp("made") / "medperf_tutorial").path


@pytest.fixture
def tutorial(made_once: Path, home: Home) -> TutorialFolder:
    """The tutorial's folder where the person works."""
    shutil.copytree(made_once, "medperf_tutorial")
    found = find_folder(Path("medperf_tutorial"))
    assert found is not None
    return found


@pytest.fixture
def dataset(tutorial: TutorialFolder, home: Home) -> LocalDataset:
    """A dataset that was prepared from it."""
    made = tutorial
    source = Source(data_path=str(made.images.resolve()), labels_path=str(made.labels.resolve()))
    return local_dataset(home, "a", source=source)


# Removal


@pytest.mark.parametrize("kept", ["dataset", "tutorial"])
def test_clean_removes_nothing_while_another_command_is_between_two_steps(
    server: Server, home: Home, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest, kept: str
) -> None:
    request.getfixturevalue(kept)
    before = sorted(home.root.rglob("*"))
    with working(server) as other:
        assert run(["tutorial", "clean", "--yes"]) == BUSY
        assert f"Another command works in {home.root} (process {other.pid})" in capsys.readouterr().err
        assert set(before) <= set(home.root.rglob("*"))
        assert Path("medperf_tutorial/mock_chexpert").is_dir()
        server.answer.set()
        assert other.wait(20) == 0
    assert run(["tutorial", "clean", "--yes"]) == 0
    assert not Path("medperf_tutorial").exists()


def test_two_commands_work_in_one_folder(server: Server, home: Home) -> None:
    with working(server):
        assert run(["dataset", "ls", "--local"]) == 0


@pytest.mark.usefixtures("dataset")
def test_a_killed_command_holds_nothing(server: Server, home: Home) -> None:
    with working(server) as other:
        other.kill()
        other.wait(20)
        assert run(["tutorial", "clean", "--yes"]) == 0


@pytest.mark.usefixtures("dataset")
def test_no_command_begins_while_clean_asks(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(folder_lock, "_SHARE_WAIT_SECONDS", 0.2)
    with pexpect.spawn(MEDPERF, ["tutorial", "clean"], encoding="utf-8", timeout=20) as terminal:
        terminal.expect_exact("Remove all of it? [y/N]:")
        left_over = home.root / ".seen.json.partial-x"
        left_over.touch()
        assert run(["dataset", "ls", "--local"]) == BUSY
        assert left_over.exists(), "who is refused touches nothing"
        assert f"about to move or remove {home.root} (process {terminal.pid})" in capsys.readouterr().err
        terminal.sendline("y")
        terminal.expect(pexpect.EOF)
    assert not home.root.exists()


def failed_run(home: Home) -> Path:
    """The log of a preparation of somebody's own data that failed."""
    journal = Journal(home.journal)
    opened = open_run(journal, purpose="dataset create", container_name="prep", task="prepare")
    journal.ended(opened.id, RunState.FAILED, cause=Cause.EXIT_CODE, exit_code=3)
    log = home.runs / opened.id / "task.log"
    log.parent.mkdir()
    log.write_text("said")
    return log


def damaged_dataset(home: Home) -> Path:
    record = local_dataset(home, "d").folder / "dataset.yaml"
    record.write_text("half: [")
    return record


def damaged_result(home: Home) -> Path:
    record = home.results / ("f" * 64) / "result.yaml"
    record.parent.mkdir()
    record.write_text("half: [")
    return record


def own_file(home: Home) -> Path:
    file = home.root / "notes.txt"
    file.write_text("mine")
    return file


@pytest.mark.usefixtures("dataset")
@pytest.mark.parametrize("stranger", [failed_run, damaged_dataset, damaged_result, own_file])
def test_what_is_not_known_to_be_the_tutorials_stays_and_is_named(
    home: Home, capsys: pytest.CaptureFixture[str], stranger: object
) -> None:
    assert callable(stranger)
    file = stranger(home)
    content = file.read_text()
    assert run(["tutorial", "clean", "--yes"]) == 0
    out = capsys.readouterr().out
    assert "all of it, since nothing else is there" not in out
    kept = file if file.parent == home.root else file.parent
    assert f"Stays, since it is not known to be the tutorial's: {kept}" in out
    assert file.read_text() == content
    assert local_datasets(home, on_damaged=lambda *_: None) == []
    assert not Path("medperf_tutorial").exists()


@pytest.mark.usefixtures("tutorial")
def test_where_no_dataset_is_the_tutorials_the_login_and_what_was_fetched_stay(home: Home) -> None:
    (home.assets / "sha256").mkdir()
    assert run(["tutorial", "clean", "--yes"]) == 0
    assert not Path("medperf_tutorial").exists()
    assert home.credentials.exists()
    assert (home.assets / "sha256").is_dir()


# Another store


def moved(home: Home) -> list[Path]:
    return [path for path in home.root.parent.iterdir() if ".set-aside-" in path.name]


def test_the_old_folder_is_not_set_aside_under_another_command(
    server: Server, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    local_dataset(home, "a")
    with working(server) as other:
        server.store_id = str(uuid.UUID(int=8))
        for command in (["benchmark", "ls", "-y"], ["login", "-y", "--username", "ada", "--password_stdin"]):
            assert run(command) == BUSY
            assert f"(process {other.pid})" in capsys.readouterr().err
    assert moved(home) == []
    assert len(local_datasets(home)) == 1


@pytest.mark.parametrize("command", ["benchmark ls", "dataset submit -d a", "result submit --all", "auth status"])
def test_a_command_that_set_the_old_folder_aside_says_that_it_did_nothing_else(
    server: Server, home: Home, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    local_result(home, local_dataset(home, "a"))
    assert run(["dataset", "ls"]) == 0
    capsys.readouterr()
    server.store_id = str(uuid.UUID(int=8))
    assert run([*command.split(), "-y"]) == STORE_CHANGED
    out, err = capsys.readouterr()
    (aside,) = moved(home)
    assert out == ""
    assert f"The old folder is now {aside}, and nothing else was done" in err
    assert "What to do: Run `medperf login`" in err
    assert (aside / "datasets" / ("a" * 40) / "dataset.yaml").is_file()
    # The new folder is the new store's, and holds no login.
    assert run(command.split()) != STORE_CHANGED
    assert not home.credentials.exists()


# A folder that somebody removes


def test_a_folder_that_is_removed_under_a_command_is_said_and_is_no_fault_of_ours(
    server: Server, home: Home
) -> None:
    server.on_login = lambda: shutil.rmtree(home.root)
    done = subprocess.run(
        [MEDPERF, "login", "--username", "ada", "--password_stdin"],
        input="sesame\n",
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 14
    assert f"is gone that this command was working with: {home.root}" in done.stderr
    assert "Please report" not in done.stderr


def test_what_somebody_removed_after_it_was_listed_is_no_failure(home: Home, dataset: LocalDataset) -> None:
    local_result(home, dataset)
    leavings = find_leavings(home, Path("medperf_tutorial"))
    shutil.rmtree(home.results)
    shutil.rmtree(Path("medperf_tutorial/mock_chexpert"))
    shutil.rmtree(dataset.data, ignore_errors=True)
    assert remove(home, leavings) == []
    assert not home.root.exists()
    shutil.rmtree("medperf_tutorial", ignore_errors=True)
    assert remove(home, leavings) == []
