"""Moving the local folder: on one disk and to another, killed in the middle, refused where it cannot be."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from containers.attack import AS_ROOT, eventually
from medperf.cli.main import run
from medperf.home import Home, entry_of
from medperf.journal import Journal, RunState
from medperf.storage import move
from peers.kept import local_dataset
from peers.runs import open_run

MEDPERF = str(Path(sys.executable).with_name("medperf"))
SERVER = "http://localhost:8000"
# Memory: another file system than that of the tests' folders.
MEMORY = Path("/dev/shm")
Medperf = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A local folder with a dataset in it."""
    monkeypatch.setenv("MEDPERF_HOME", str(tmp_path / "my medperf"))
    monkeypatch.setenv("MEDPERF_SERVER", SERVER)
    made = Home.at(SERVER)
    local_dataset(made, "a")
    open_run(Journal(made.journal))
    for one in Journal(made.journal).runs():
        Journal(made.journal).ended(one.id, RunState.DONE, cause=None, exit_code=0)
    return made


@pytest.fixture(params=["the same disk", "another disk"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    if request.param == "the same disk":
        (tmp_path / "large disk").mkdir()
        yield tmp_path / "large disk"
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        assert Path(folder).stat().st_dev != tmp_path.stat().st_dev
        yield Path(folder)


@pytest.fixture
def other_disk() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder)


@pytest.fixture
def medperf(capfd: pytest.CaptureFixture[str]) -> Medperf:
    def command(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run(arguments)
        said = capfd.readouterr()
        return code, said.out, said.err

    return command


def held(root: Path) -> dict[str, tuple[int, bytes | None]]:
    """Mode and content of all that is in a folder."""
    return {
        str(path.relative_to(root)): (path.stat().st_mode, path.read_bytes() if path.is_file() else None)
        for path in root.rglob("*")
    }


def test_all_is_moved_and_found_by_the_next_command(home: Home, disk: Path, medperf: Medperf) -> None:
    listed = medperf("dataset", "ls", "--local")
    before = held(home.root)
    code, out, err = medperf("storage", "mv", str(disk), "--yes")
    assert (code, out) == (0, f"The local folder is now {disk}/localhost_8000\n"), err
    assert home.root.readlink() == disk / "localhost_8000"
    assert Home.at(SERVER).root == disk / "localhost_8000"
    assert held(disk / "localhost_8000") == before
    assert medperf("dataset", "ls", "--local") == listed
    # Nothing else is left at the old place.
    assert [path.name for path in home.root.parent.iterdir() if not path.name.endswith(".lock")] == [
        "localhost_8000"
    ]


def test_what_was_moved_is_moved_again_and_one_link_leads_there(home: Home, disk: Path, tmp_path: Path) -> None:
    (tmp_path / "third").mkdir()
    before = held(home.root)
    assert run(["storage", "mv", str(disk), "--yes"]) == 0
    assert run(["storage", "mv", str(tmp_path / "third"), "--yes"]) == 0
    assert entry_of(SERVER).readlink() == tmp_path / "third" / "localhost_8000"
    assert list(disk.iterdir()) == []
    assert held(tmp_path / "third" / "localhost_8000") == before


def test_a_move_to_another_disk_that_is_killed_leaves_what_is_there_and_can_be_done_again(
    home: Home, other_disk: Path, medperf: Medperf
) -> None:
    (home.datasets / "large").mkdir()
    for number in range(200):
        (home.datasets / "large" / f"{number}.dcm").write_bytes(os.urandom(200_000))
    before = held(home.root)
    with subprocess.Popen([MEDPERF, "storage", "mv", str(other_disk), "-y"]) as command:
        while not list(other_disk.glob(".*partial-*/whole/datasets/large/*")):
            assert command.poll() is None
            time.sleep(0.001)
        command.send_signal(signal.SIGKILL)
    assert not home.root.is_symlink()
    assert held(home.root) == before
    somebodys = other_disk / ".photos.partial-2020"
    somebodys.mkdir()
    assert medperf("storage", "mv", str(other_disk), "--yes")[0] == 0
    assert held(other_disk / "localhost_8000") == before
    # What was left of the first is gone; what only looks like it is not ours.
    assert [path.name for path in other_disk.iterdir() if "partial" in path.name] == [somebodys.name]


def test_a_move_that_is_killed_once_the_new_one_stands_is_whole_and_the_next_command_ends_it(
    home: Home, other_disk: Path, monkeypatch: pytest.MonkeyPatch, medperf: Medperf
) -> None:
    before = held(home.root)

    remove = shutil.rmtree

    def killed(folder: Path, **options: bool) -> None:
        if ".moved-" in folder.name:
            raise KeyboardInterrupt
        remove(folder, **options)

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            move(home, other_disk, on_copied=lambda _: None)
    assert Home.at(SERVER).root == other_disk / "localhost_8000"
    assert held(other_disk / "localhost_8000") == before
    assert list(home.root.parent.glob(".localhost_8000.moved-*")) != []
    assert medperf("dataset", "ls", "--local")[0] == 0
    assert list(home.root.parent.glob(".localhost_8000.moved-*")) == []


def test_a_folder_whose_disk_is_away_is_not_made_anew(home: Home, disk: Path, medperf: Medperf) -> None:
    assert medperf("storage", "mv", str(disk), "--yes")[0] == 0
    (disk / "localhost_8000").rename(disk / "unmounted")
    code, _, err = medperf("dataset", "ls", "--local")
    assert (code, "Mount its disk." in err) == (2, True), err
    assert not (disk / "localhost_8000").exists()


def test_what_stands_in_the_way_is_said_and_nothing_is_moved(
    home: Home, disk: Path, tmp_path: Path, medperf: Medperf
) -> None:
    before = held(home.root)

    def refused(into: Path, said: str) -> None:
        code, _, err = medperf("storage", "mv", str(into), "--yes")
        assert (code, said in err) == (2, True), err
        assert (held(home.root), home.root.is_symlink()) == (before, False)

    refused(tmp_path / "nowhere", "does not exist")
    refused(home.root.parent, "is there already")
    refused(home.datasets, "lies in the folder that is to be moved")
    (disk / "localhost_8000").mkdir()
    refused(disk, "is there already")
    (disk / "localhost_8000").rmdir()
    open_run(Journal(home.journal))
    before = held(home.root)
    refused(disk, "Runs that have not ended work in")


def test_nothing_is_moved_while_another_command_works_there(home: Home, disk: Path, medperf: Medperf) -> None:
    script = (
        "import sys; from medperf.home import Home\nwith Home.at(sys.argv[1]).lock():\n"
        " print(1, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "1\n"
        code, _, err = medperf("storage", "mv", str(disk), "--yes")
        assert (code, f"(process {other.pid})" in err) == (12, True), err
        other.stdin.write("\n")
    assert not home.root.is_symlink()
    assert medperf("storage", "mv", str(disk), "--yes")[0] == 0


def test_without_a_word_nothing_is_moved(home: Home, disk: Path, medperf: Medperf) -> None:
    code, _, err = medperf("storage", "mv", str(disk))
    assert (code != 0, "Move " in err, home.root.is_symlink()) == (True, True, False)


@pytest.mark.skipif(not AS_ROOT, reason="only root can mount a disk that is too small")
def test_a_disk_that_is_too_small_is_refused_before_anything_is_copied(
    home: Home, tmp_path: Path, medperf: Medperf
) -> None:
    (home.datasets / "large.bin").write_bytes(bytes(8 * 1024**2))
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small], check=True)
    try:
        code, _, err = medperf("storage", "mv", str(small), "--yes")
        assert (code, "GB free" in err, list(small.iterdir())) == (2, True, []), err
    finally:
        subprocess.run(["umount", small], check=True)


def test_what_takes_the_space_is_listed(home: Home, medperf: Medperf) -> None:
    (home.results / "one").write_bytes(bytes(2_500_000))
    code, out, _ = medperf("storage", "ls")
    assert (code, f"In {home.root}; " in out, "scores " in out, "2.5 MB" in out) == (
        0,
        True,
        True,
        True,
    ), out
    code, out, _ = medperf("storage", "ls", "--json")
    shown = json.loads(out)
    assert (code, shown["folder"]) == (0, str(home.root))
    assert {part["name"]: part["size_bytes"] for part in shown["parts"]}["results"] == 2_500_000


@pytest.mark.parametrize("was_moved_before", [False, True])
def test_a_command_that_waited_for_the_move_does_not_work_at_the_old_place(
    home: Home, disk: Path, tmp_path: Path, was_moved_before: bool
) -> None:
    if was_moved_before:
        (tmp_path / "first").mkdir()
        move(home, tmp_path / "first", on_copied=lambda _: None)
        home = Home.at(SERVER)
    with home.lock() as lock, lock.alone():
        command = subprocess.Popen([MEDPERF, "dataset", "ls", "--local"], stderr=subprocess.PIPE, text=True)
        try:
            waits = eventually(lambda: holds_open(command.pid, ".lock"), 30)
            assert (waits, command.poll()) == (True, None)
            move(home, disk, on_copied=lambda _: None)
        except BaseException:
            command.kill()
            command.communicate()
            raise
    _, err = command.communicate()
    assert ("was moved just now" in err, command.returncode) == (True, 12), err
    assert was_moved_before is False or not home.root.exists()


def test_no_second_move_begins_while_the_first_removes_the_old_copy(
    home: Home, other_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "third").mkdir()
    remove, said = shutil.rmtree, []

    def slowly(folder: Path, **options: bool) -> None:
        if ".moved-" in folder.name:
            second = [MEDPERF, "storage", "mv", str(tmp_path / "third"), "--yes"]
            said.append(subprocess.run(second, capture_output=True, text=True, check=False))
        remove(folder, **options)

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", slowly)
        assert run(["storage", "mv", str(other_disk), "--yes"]) == 0
    assert [(one.returncode, "Another command" in one.stderr) for one in said] == [(12, True)]
    assert Home.at(SERVER).root == other_disk / "localhost_8000"
    assert list((tmp_path / "third").iterdir()) == []


def test_a_move_that_is_killed_before_the_two_change_places_is_done_by_the_same_command(
    home: Home, disk: Path, monkeypatch: pytest.MonkeyPatch, medperf: Medperf
) -> None:
    before = held(home.root)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("medperf.storage._swap", killed)
        with pytest.raises(KeyboardInterrupt):
            move(home, disk, on_copied=lambda _: None)
    assert (held(home.root), home.root.is_symlink()) == (before, False)
    code, _, err = medperf("storage", "mv", str(disk), "--yes")
    assert (code, Home.at(SERVER).root) == (0, disk / "localhost_8000"), err
    assert held(disk / "localhost_8000") == before
    assert list(home.root.parent.glob(".localhost_8000.moved-*")) == []


def test_what_a_killed_move_left_is_removed_only_where_it_is_of_this_folder(
    home: Home, disk: Path, medperf: Medperf
) -> None:
    (disk / "localhost_8000").mkdir()
    (disk / "localhost_8000" / ".being-moved").write_text("/another/persons/.medperf/localhost_8000")
    (disk / "localhost_8000" / "precious").write_text("theirs")
    assert medperf("storage", "mv", str(disk), "--yes")[0] == 2
    assert (disk / "localhost_8000" / "precious").read_text() == "theirs"


def test_it_is_moved_back_to_where_it_was(home: Home, disk: Path, medperf: Medperf) -> None:
    before = held(home.root)
    assert medperf("storage", "mv", str(disk), "--yes")[0] == 0
    code, _, err = medperf("storage", "mv", str(home.root.parent), "--yes")
    assert (code, home.root.is_symlink(), Home.at(SERVER).root) == (0, False, home.root), err
    assert held(home.root) == before
    assert list(disk.iterdir()) == []


@pytest.mark.skipif(not AS_ROOT, reason="only root can mount a folder in a second place")
def test_one_file_system_that_is_mounted_twice_is_copied_between(
    home: Home, tmp_path: Path, medperf: Medperf
) -> None:
    before = held(home.root)
    for name in ("source", "mounted"):
        (tmp_path / name).mkdir()
    subprocess.run(["mount", "--bind", tmp_path / "source", tmp_path / "mounted"], check=True)
    try:
        code, _, err = medperf("storage", "mv", str(tmp_path / "mounted"), "--yes")
        assert (code, held(tmp_path / "mounted" / "localhost_8000")) == (0, before), err
    finally:
        subprocess.run(["umount", tmp_path / "mounted"], check=True)


def holds_open(pid: int, name: str) -> bool:
    """Whether a process has a file whose path holds this open."""
    with suppress(FileNotFoundError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                if name in str(descriptor.readlink()):
                    return True
    return False


def test_where_two_names_cannot_be_exchanged_in_one_step_it_is_done_in_several(
    home: Home, disk: Path, monkeypatch: pytest.MonkeyPatch, medperf: Medperf
) -> None:
    before = held(home.root)
    monkeypatch.setattr("medperf.storage._LIBC", object())
    assert medperf("storage", "mv", str(disk), "--yes")[0] == 0
    assert held(disk / "localhost_8000") == before
    assert Home.at(SERVER).root == disk / "localhost_8000"
    assert [path.name for path in home.root.parent.iterdir() if not path.name.endswith(".lock")] == [
        "localhost_8000"
    ]
