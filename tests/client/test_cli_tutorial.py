"""`medperf tutorial`: its files, made once; its committee, on its own server; its removal, of its own only."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pexpect
import pytest

from medperf.cli.main import run
from medperf.credentials import Credentials, Keyring
from medperf.datasets import LocalDataset, Source, alone_with, local_datasets
from medperf.home import Home
from medperf.journal import Journal, RunState
from medperf.results import local_results
from medperf.tutorial.files import find_folder, make_folder
from peers import answers
from peers.kept import local_dataset, local_result
from peers.runs import open_run
from peers.scripted_peer import Asked, Reply, Script, ScriptedPeer

Serve = Callable[[Mapping[str, Reply | Script]], ScriptedPeer]
MEDPERF = str(Path(sys.executable).with_name("medperf"))


# The files


def test_the_files_are_made_with_a_label_for_each_image(
    home_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["tutorial", "data"]) == 0
    assert capsys.readouterr().out == (
        "Made medperf_tutorial/mock_chexpert/images (240 images)\nMade medperf_tutorial/mock_chexpert/labels\n"
    )
    folder = Path("medperf_tutorial/mock_chexpert")
    with (folder / "labels" / "labels.csv").open() as labels:
        labelled = {row["image"] for row in csv.DictReader(labels)}
    assert labelled == {image.name for image in (folder / "images").iterdir()}
    assert len(labelled) >= 200


def test_what_is_there_is_not_overwritten(home_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("medperf_tutorial").mkdir()
    Path("medperf_tutorial/mine").write_text("mine")
    assert run(["tutorial", "data"]) == 2
    assert "is there already, and is not overwritten" in capsys.readouterr().err
    assert [path.name for path in Path("medperf_tutorial").iterdir()] == ["mine"]
    shutil.rmtree("medperf_tutorial")
    assert run(["tutorial", "data"]) == 0
    assert run(["tutorial", "data"]) == 2


def test_what_a_killed_command_left_is_made_anew(home_folder: Path) -> None:
    with subprocess.Popen([MEDPERF, "tutorial", "data"], stdout=subprocess.DEVNULL) as making:
        deadline = time.monotonic() + 20
        while not any(Path("medperf_tutorial").glob(".mock_chexpert.partial/images/*")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        making.send_signal(signal.SIGKILL)
    assert find_folder(Path("medperf_tutorial")) is not None
    assert not Path("medperf_tutorial/mock_chexpert").exists()
    assert run(["tutorial", "data"]) == 0
    assert sorted(path.name for path in Path("medperf_tutorial").iterdir()) == [
        ".medperf-tutorial.json",
        "mock_chexpert",
    ]


def test_an_interrupted_making_leaves_nothing(home_folder: Path) -> None:
    with subprocess.Popen([MEDPERF, "tutorial", "data"], stderr=subprocess.DEVNULL) as making:
        deadline = time.monotonic() + 20
        while not any(Path("medperf_tutorial").glob(".mock_chexpert.partial/images/*")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        making.send_signal(signal.SIGINT)
    assert making.returncode == 130
    assert not Path("medperf_tutorial").exists()


@pytest.mark.parametrize(
    "marker",
    [
        "",
        "{}",
        '{"files": ["../x"], "is_whole": true}',
        '{"files": ["/etc/passwd"], "is_whole": true}',
    ],
)
def test_a_marker_that_the_tutorial_did_not_write_marks_nothing(tmp_path: Path, marker: str) -> None:
    (tmp_path / ".medperf-tutorial.json").write_text(marker)
    assert find_folder(tmp_path) is None


# The committee


def committee(*known: dict[str, object]) -> dict[str, Reply | Script]:
    def as_committee(asked: Asked) -> Reply:
        assert asked.headers["authorization"] == "Bearer access-7"
        return Reply.of(answers.page(*known))

    approved = {
        f"POST /api/v1/associations/{it['id']}/approve": Reply.of(
            {**it, "state": "APPROVED"}, Medperf_Version=f"association/{it['id']}@2"
        )
        for it in known
    }
    login = Reply.of(answers.tokens(7, username="testbenchmarkowner", user_id=3))
    return {"POST /api/v1/auth/login": login, "GET /api/v1/associations": as_committee, **approved}


def test_the_committee_approves_what_is_pending_and_the_own_login_stays(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    peer = serve(
        committee(
            answers.association(1, part_kind="model", part_id=4, state="APPROVED"),
            answers.association(2, part_id=9, state="REJECTED"),
            answers.association(3, part_id=9),
        )
    )
    assert run(["tutorial", "approve", "--benchmark_uid", "1", "--data_uid", "9"]) == 0
    assert capsys.readouterr().out == "Association 3: dataset 9 (mine) with benchmark 1 (chest-1) is APPROVED.\n"
    listing = next(asked for asked in peer.asked if asked.path == "/api/v1/associations")
    assert listing.query == {"benchmark": "1", "dataset": "9", "limit": "100"}
    kept = Keyring(Home.at(peer.url).credentials).load()
    assert kept is not None
    assert kept.username == "ada"
    # What the committee was shown, the person has seen: the next command waits for it.
    assert "association/3" in json.loads(Home.at(peer.url).seen.read_text())


def test_approving_twice_is_no_failure_and_approving_nothing_is_one(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    model = answers.association(1, part_kind="model", part_id=4, state="APPROVED")
    serve(committee(model, answers.association(3, part_id=9, state="APPROVED")))
    assert run(["tutorial", "approve"]) == 0
    assert "is APPROVED" in capsys.readouterr().out
    serve(committee(model))
    assert run(["tutorial", "approve"]) == 2
    assert "There is no request to approve" in capsys.readouterr().err


def test_a_server_that_was_not_seeded_never_sees_the_tutorials_password(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Reply.of({**answers.SERVER, "seeded_with": None})
    peer = serve({**committee(answers.association(3)), "GET /api/v1/server": server})
    assert run(["tutorial", "approve"]) == 2
    assert "was not seeded for the tutorial" in capsys.readouterr().err
    assert [asked for asked in peer.asked if asked.method == "POST"] == []


# Removal


@pytest.fixture
def home(home_folder: Path) -> Home:
    """The local folder of a server after the tutorial: its dataset and results, caches, a login."""
    home = Home.at("http://localhost:8000")
    made = make_folder(Path("medperf_tutorial"))
    dataset = prepared_from(home, "a", made.images, made.labels)
    for model_id in (2, 4):
        local_result(home, dataset, model_id)
    run_on(home, dataset)
    (home.assets / "sha256").mkdir()
    (home.environments / "numpy").mkdir()
    (home.containers / "abc").mkdir()
    Keyring(home.credentials).keep(Credentials(5, "ada", "a", "r", 0.0))
    return home


def prepared_from(home: Home, digit: str, images: Path, labels: Path) -> LocalDataset:
    source = Source(data_path=str(images.resolve()), labels_path=str(labels.resolve()))
    return local_dataset(home, digit, source=source, server_id=ord(digit))


def run_on(home: Home, dataset: LocalDataset) -> str:
    journal = Journal(home.journal)
    opened = open_run(journal, dataset_uid=dataset.generated_uid)
    journal.ended(opened.id, RunState.DONE, cause=None, exit_code=0)
    (home.runs / opened.id).mkdir()
    (home.runs / opened.id / "task.log").write_text("said")
    return opened.id


def test_everything_goes_where_there_is_only_the_tutorials(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tutorial", "clean", "--yes"]) == 0
    listed = capsys.readouterr().out
    for named in ("medperf_tutorial: 241 files", "dataset mine-a", "scores", "runs", "the login", "all of it"):
        assert named in listed
    assert not home.root.exists()
    assert not Path("medperf_tutorial").exists()
    assert run(["tutorial", "clean", "--yes"]) == 0
    assert "nothing of the tutorial's" in capsys.readouterr().out


def test_a_dataset_from_another_folder_stays_with_its_results_and_runs(home: Home) -> None:
    other = Path("medperf_tutorial_of_mine/mock_chexpert")
    for name in ("images", "labels"):
        (other / name).mkdir(parents=True)
    mine = prepared_from(home, "b", other / "images", other / "labels")
    name = local_result(home, mine, 2)
    run_id = run_on(home, mine)
    assert run(["tutorial", "clean", "--yes"]) == 0
    assert [it.generated_uid for it in local_datasets(home)] == [mine.generated_uid]
    assert [it.name for it in local_results(home)] == [name]
    assert [it.id for it in Journal(home.journal).runs()] == [run_id]
    assert [path.name for path in home.runs.iterdir()] == [run_id]
    assert len([path for path in home.results.iterdir() if path.name != "names"]) == 1
    assert not home.credentials.exists()
    assert other.is_dir()
    assert not Path("medperf_tutorial").exists()


def test_a_dataset_prepared_from_another_folder_inside_the_tutorials_stays(home: Home) -> None:
    own = Path("medperf_tutorial/my_xrays")
    for name in ("images", "labels"):
        (own / name).mkdir(parents=True)
        (own / name / "mine").write_text("mine")
    mine = prepared_from(home, "b", own / "images", own / "labels")
    assert run(["tutorial", "clean", "--yes"]) == 0
    assert [it.generated_uid for it in local_datasets(home)] == [mine.generated_uid]
    assert (own / "images" / "mine").read_text() == "mine"
    assert not Path("medperf_tutorial/mock_chexpert").exists()


def test_what_a_person_put_beside_the_images_stays(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    mine = Path("medperf_tutorial/mock_chexpert/images/mine.png")
    mine.write_bytes(b"mine")
    assert run(["tutorial", "clean", "--yes"]) == 0
    assert mine.read_bytes() == b"mine"
    assert [path.name for path in mine.parent.iterdir()] == ["mine.png"]
    assert "Stays, since the tutorial did not make it" in capsys.readouterr().out


def test_a_persons_own_file_is_no_circle_between_clean_and_data(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = Path("medperf_tutorial/notes.txt")
    notes.write_text("mine")
    assert run(["tutorial", "clean", "--yes"]) == 0
    capsys.readouterr()
    assert run(["tutorial", "data"]) == 2
    refused = capsys.readouterr().err
    assert "(notes.txt)" in refused
    assert "tutorial clean" not in refused
    assert run(["tutorial", "clean", "--yes"]) == 0
    assert capsys.readouterr().out == "There is nothing of the tutorial's here.\n"
    assert notes.read_text() == "mine"
    notes.rename("notes.txt")
    Path("medperf_tutorial").rmdir()
    assert run(["tutorial", "data"]) == 0


def test_only_files_that_are_there_are_said_to_be_removed(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree("medperf_tutorial/mock_chexpert/images")
    assert run(["tutorial", "clean", "--yes"]) == 0
    assert "medperf_tutorial: 1 files" in capsys.readouterr().out
    assert not Path("medperf_tutorial").exists()


def test_a_folder_of_the_same_name_that_the_tutorial_did_not_make_stays(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree("medperf_tutorial")
    Path("medperf_tutorial/mock_chexpert/images").mkdir(parents=True)
    assert run(["tutorial", "clean", "--yes"]) == 0
    assert "nothing of the tutorial's" in capsys.readouterr().out
    assert Path("medperf_tutorial/mock_chexpert/images").is_dir()
    assert len(local_datasets(home)) == 1


def test_a_dataset_whose_folder_is_gone_is_named_and_stays(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree("medperf_tutorial")
    assert run(["tutorial", "clean", "--yes"]) == 0
    assert f"Stays: dataset {'a' * 40}" in capsys.readouterr().out
    assert len(local_datasets(home)) == 1


def test_the_folder_is_found_from_elsewhere_by_the_dataset_prepared_from_it(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Path("medperf_tutorial").absolute()
    monkeypatch.chdir(tmp_path)
    assert run(["tutorial", "clean", "--yes"]) == 0
    assert not made.exists()


def test_nothing_goes_unless_the_answer_is_yes(home: Home) -> None:
    assert run(["tutorial", "clean"]) == 3
    with pexpect.spawn(MEDPERF, ["tutorial", "clean"], encoding="utf-8", timeout=20) as terminal:
        terminal.expect_exact("This will be removed:")
        terminal.expect_exact("Remove all of it? [y/N]:")
        terminal.sendline("n")
        terminal.expect(pexpect.EOF)
        terminal.close()
        assert terminal.exitstatus == 3
    assert Path("medperf_tutorial/mock_chexpert").is_dir()
    assert len(local_datasets(home)) == 1
    assert home.credentials.exists()


def test_nothing_goes_while_a_container_runs(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    open_run(Journal(home.journal), container_name="chest-xray-cnn", dataset_uid="a" * 40)
    assert run(["tutorial", "clean", "--yes"]) == 12
    assert f"runs infer of chest-xray-cnn (process {os.getpid()})" in capsys.readouterr().err
    assert len(local_datasets(home)) == 1
    assert Path("medperf_tutorial/mock_chexpert").is_dir()


def test_nothing_goes_while_another_command_works_on_the_dataset(home: Home) -> None:
    (dataset,) = local_datasets(home)
    with alone_with(home, dataset):
        assert run(["tutorial", "clean", "--yes"]) == 12
    assert len(local_results(home)) == 2
    assert home.credentials.exists()
    assert any(home.runs.iterdir())
