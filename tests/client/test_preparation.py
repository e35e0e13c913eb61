"""Preparation that takes days: gone on with case by case by real commands, mended by hand, ended once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import docker
import pexpect
import pytest

from containers import cases
from containers.attack import eventually
from containers.images import built
from containers.small import Site
from medperf.api import Gateway
from medperf.case_report import CaseReport, Stage
from medperf.datasets import LocalDataset, local_datasets
from medperf.engines.docker_options import HOME_LABEL
from medperf.home import Home
from medperf.journal import Journal, RunState
from medperf.preferences import Preferences
from medperf.preparations import InPreparation, preparations
from peers.benchmark_server import BenchmarkServer
from peers.scripted_peer import ScriptedPeer

MEDPERF = str(Path(sys.executable).with_name("medperf"))
IMAGE = "medperf-test/cases:1.0"


class Machine:
    """A data owner's machine with three cases, of a benchmark whose preparation goes case by case."""

    def __init__(self, site: Site, server: BenchmarkServer) -> None:
        self.site = site
        self.server = server
        self.begun: list[subprocess.Popen[str]] = []

    @property
    def home(self) -> Home:
        return self.site.home

    @property
    def create(self) -> tuple[str, ...]:
        paths = ("--data_path", str(self.site.data), "--labels_path", str(self.site.labels))
        return ("dataset", "create", "--name", "mine", *paths, "--benchmark", "1")

    def case(self, number: int, text: str) -> None:
        """Have a case of the raw data be another."""
        (self.site.data / f"case{number}.txt").write_text(text)

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        out = subprocess.PIPE
        command = subprocess.Popen(
            [MEDPERF, *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, text=True
        )
        self.begun.append(command)
        return command

    def typed(self, *arguments: str, code: int = 0) -> str:
        """What a command says that ends with this code."""
        command = self.begin(*arguments)
        said, _ = command.communicate(timeout=120)
        assert command.returncode == code, said
        return said

    def again(self, *more: str, code: int = 0) -> str:
        return self.typed("dataset", "prepare", "--data_uid", self.ongoing.uid, *more, code=code)

    def killed_at_work(self) -> None:
        """Begin to prepare, and kill the command once its container has reported a case."""
        command = self.begin(*self.create)
        assert eventually(lambda: bool(preparations(self.home, on_damaged=lambda *_: None)), seconds=60)
        assert eventually(lambda: self.report is not None, seconds=60)
        command.kill()
        command.wait()

    @property
    def ongoing(self) -> InPreparation:
        [ongoing] = preparations(self.home, on_damaged=lambda *_: pytest.fail("damaged"))
        return ongoing

    @property
    def report(self) -> CaseReport | None:
        return self.ongoing.read_report()

    @property
    def dataset(self) -> LocalDataset:
        [dataset] = local_datasets(self.home)
        dataset.verify()
        return dataset

    def prepared(self) -> dict[str, str]:
        return {file.name: file.read_text() for file in self.dataset.data.iterdir()}

    def done_in_log(self) -> list[str]:
        """Each case that a container did, in all runs, the oldest first."""
        runs = [run for run in Journal(self.home.journal).runs()[::-1] if run.task == "prepare"]
        logs = "".join((self.home.runs / run.id / "task.log").read_text() for run in runs)
        return [line.removeprefix("did ") for line in logs.splitlines() if line.startswith("did ")]


@pytest.fixture(scope="module")
def image(base_image: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("image")
    (folder / "main.py").write_text(cases.CODE)
    with closing(docker.from_env()) as daemon:
        lines = ("COPY main.py /main.py", 'ENTRYPOINT ["python3", "/main.py"]')
        return built(daemon, base_image, folder, *lines, name=IMAGE)


@pytest.fixture
def machine_with(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Machine]]:
    """Make a machine: its platform, and what its container writes into the report at the end."""
    begun: list[Machine] = []
    peers: list[ScriptedPeer] = []

    def make(platform: str, *, lie: str = "") -> Machine:
        site = Site(tmp_path)
        engine, _, form = platform.partition(" ")
        as_image = {"image": IMAGE, "image_hash": request.getfixturevalue("image")} if engine == "docker" else {}
        cases.register(site.shelf, 1, lie=lie, is_config=bool(form), **as_image)
        answering = BenchmarkServer(site.shelf)
        peer = ScriptedPeer(answering)
        peers.append(peer.__enter__())
        monkeypatch.setenv("MEDPERF_SERVER", peer.url)
        monkeypatch.setenv("MEDPERF_HOME", str(tmp_path / "medperf"))
        site.home = Home.at(peer.url)
        Preferences(platform=engine).save(site.home.preferences)
        with Gateway(site.home) as gateway:
            gateway.login("ada", "test")
        begun.append(Machine(site, answering))
        return begun[-1]

    yield make
    for machine in begun:
        for command in machine.begun:
            if command.poll() is None:
                command.kill()
            command.communicate()
    for peer in peers:
        peer.__exit__(None, None, None)


PLATFORMS = pytest.mark.parametrize("platform", ["sandbox", "docker"])


@pytest.mark.parametrize("platform", ["sandbox", "docker", "docker config"])
def test_after_a_failure_it_goes_on_with_the_cases_that_are_left(
    machine_with: Callable[..., Machine], platform: str
) -> None:
    machine = machine_with(platform)
    machine.case(1, "broken")
    said = machine.typed(*machine.create, code=7)
    ongoing = machine.ongoing
    assert f"medperf dataset prepare --data_uid {ongoing.uid}" in said
    assert f"they are in {ongoing.data}, their labels in {ongoing.labels}; " in said
    assert f"what their container says of each is in {ongoing.work / 'report_file' / 'report.'}" in said
    assert "1 case: 1 at 8 DONE" in said
    assert local_datasets(machine.home) == []
    assert [it.holds_outputs for it in Journal(machine.home.journal).runs()] == [False]

    machine.case(1, "whole")
    machine.again()
    assert machine.done_in_log() == ["case0", "case1", "case2"]
    assert machine.prepared() == {"case0.txt": "ONE", "case1.txt": "WHOLE", "case2.txt": "FIFTEEN"}
    assert (machine.dataset.name, machine.dataset.statistics) == ("mine", {"cases": 3})
    # Nothing of the work is kept twice, and nothing was sent.
    assert not ongoing.work.exists()
    assert machine.server.posted == []


@PLATFORMS
def test_after_kill_9_it_goes_on_with_the_cases_that_are_left(
    machine_with: Callable[..., Machine], platform: str
) -> None:
    machine = machine_with(platform)
    machine.case(1, "slow 6")
    machine.killed_at_work()
    said = machine.typed(*machine.create)
    assert machine.done_in_log() == ["case0", "case1", "case2"]
    runs = [run for run in Journal(machine.home.journal).runs() if run.task == "prepare"]
    if platform == "docker":  # its container went on
        assert "goes on with prepare of small-preparation-1, which an earlier command began" in said
        assert [run.state for run in runs] == [RunState.DONE]
    else:
        assert [run.state for run in runs] == [RunState.DONE, RunState.FAILED]
    assert len(machine.prepared()) == 3


def test_after_a_restart_of_the_machine_it_goes_on_with_the_same_work(
    machine_with: Callable[..., Machine],
) -> None:
    machine = machine_with("docker")
    machine.case(1, "slow 600")
    machine.killed_at_work()
    with closing(docker.from_env()) as daemon:  # what a restart leaves of it
        # All of them: one that has only just begun to work may not be said to be running yet.
        [container] = daemon.containers.list(all=True, filters={"label": f"{HOME_LABEL}={machine.home.root}"})
        container.remove(force=True)
    machine.case(1, "whole")
    machine.again()
    assert machine.done_in_log() == ["case0", "case1", "case2"]
    assert len(machine.prepared()) == 3


def test_what_may_still_be_written_by_another_engine_is_not_written_twice(
    machine_with: Callable[..., Machine],
) -> None:
    machine = machine_with("docker")
    machine.case(1, "slow 600")
    machine.killed_at_work()
    run = Journal(machine.home.journal).runs()[0]
    said = machine.again("--writable_root", "--yes", code=12)
    assert f"medperf run cancel {run.short_id}" in said
    machine.typed("run", "cancel", run.short_id, "--yes")
    machine.case(1, "whole")
    machine.again()
    assert machine.done_in_log() == ["case0", "case1", "case2"]


def test_ctrl_c_keeps_the_work(machine_with: Callable[..., Machine]) -> None:
    machine = machine_with("sandbox")
    machine.case(2, "slow 600")
    command = machine.begin(*machine.create)
    assert eventually(lambda: bool(preparations(machine.home, on_damaged=lambda *_: None)), seconds=60)
    assert eventually(lambda: machine.report is not None and machine.report.cases == 2, seconds=60)
    command.send_signal(signal.SIGINT)
    said, _ = command.communicate(timeout=60)
    assert f"medperf dataset prepare --data_uid {machine.ongoing.uid}" in said
    machine.case(2, "whole")
    machine.again()
    assert machine.done_in_log() == ["case0", "case1", "case2"]


@PLATFORMS
def test_a_case_that_a_person_mended_is_taken_as_it_is(
    machine_with: Callable[..., Machine], platform: str
) -> None:
    machine = machine_with(platform)
    machine.case(1, "unclear")
    said = machine.typed(*machine.create, code=7)
    assert "'sanity_check' ended with exit code 4" in said
    assert "3 cases: 1 at -5.1 MANUAL_REVIEW_REQUIRED, 2 at 8 DONE" in said
    # Not before it is mended; nor is there a dataset, or anything to submit.
    machine.again(code=7)
    uid = machine.ongoing.uid
    refused = machine.typed("dataset", "submit", "--data_uid", uid, "--yes", code=2)
    assert f"{uid} begins as the UIDs of datasets in preparation do" in refused
    listed = machine.typed("dataset", "ls", "--local")
    assert "in preparation: 3 cases: 1 at -5.1" in " ".join(listed.split())
    shown = machine.typed("dataset", "view", uid)
    assert "state: in preparation" in shown
    assert f"folder: {machine.ongoing.work}" in shown

    (machine.ongoing.data / "case1.txt").write_text("mended by hand")
    machine.typed("dataset", "prepare", "--data_uid", "mine")
    assert machine.prepared()["case1.txt"] == "mended by hand"
    assert machine.done_in_log() == ["case0", "case2", "case1"]
    assert "Mrs. Smith" not in said + shown + listed
    assert machine.server.posted == []


def test_what_is_prepared_or_submitted_is_not_prepared_again_by_its_uid(
    machine_with: Callable[..., Machine],
) -> None:
    machine = machine_with("sandbox")
    machine.typed(*machine.create)
    uid = next(machine.home.preparations.iterdir()).name
    before = machine.dataset
    for given in (uid, "mine", before.generated_uid[:8]):
        said = machine.typed("dataset", "prepare", "--data_uid", given, code=2)
        assert "is prepared, as dataset" in said
    before.linked_to(9)
    said = machine.typed("dataset", "prepare", "--data_uid", "9", code=2)
    assert "is prepared and on the server, as dataset 9" in said
    assert "medperf dataset create" in said
    assert "No dataset in preparation" in machine.typed("dataset", "prepare", "--data_uid", "other", code=2)
    assert len(Journal(machine.home.journal).runs()) == 3
    assert machine.dataset.generated_uid == before.generated_uid
    # To create it is to begin anew.
    machine.case(0, "else")
    machine.typed(*machine.create)
    assert len(local_datasets(machine.home)) == 2
    assert machine.done_in_log() == ["case0", "case1", "case2"] * 2


@pytest.mark.parametrize(
    ("lie", "code", "said"),
    [
        ("huge", 0, "the cases' progress is not shown"),
        (
            "malformed",
            0,
            "is not shown: The report that the container wrote is not valid YAML",
        ),
        ("link", 7, "Edit nothing in"),
        ("paints", 0, "1 at 1 \\x1b[2J\\u202e\\nowned"),
    ],
)
def test_a_report_that_lies_harms_nobody(
    machine_with: Callable[..., Machine], lie: str, code: int, said: str
) -> None:
    machine = machine_with("sandbox", lie=lie)
    shown = machine.typed(*machine.create, code=code)
    assert said in shown
    assert shown.count("is not shown") <= 1
    assert "root:" not in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_on_a_terminal_the_stages_are_bars(machine_with: Callable[..., Machine]) -> None:
    machine = machine_with("sandbox")
    machine.case(1, "unclear")
    machine.case(2, "slow 8")
    command = [*machine.create, "--no_send_progress"]
    terminal = pexpect.spawn(MEDPERF, command, encoding="utf-8", dimensions=(24, 60), timeout=60)
    terminal.expect("-5.1 MANUAL_REV[^ ]* +1  █+·+")
    terminal.expect("8 DONE +1  █+·+")
    terminal.expect("3 cases: 1 at -5.1 MANUAL_REVIEW_REQUIRED, 2 at 8 DONE")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 7


def test_a_command_that_died_between_the_work_and_the_dataset_lost_nothing(
    machine_with: Callable[..., Machine],
) -> None:
    machine = machine_with("sandbox")
    machine.case(1, "unclear")
    machine.typed(*machine.create, code=7)
    ongoing = machine.ongoing.becomes("ab" * 20)
    staging = ongoing.work / ".dataset"
    staging.mkdir()
    ongoing.data.rename(staging / "data")
    assert machine.ongoing.uid == ongoing.uid
    (staging / "data" / "case1.txt").write_text("mended")
    machine.again()
    assert machine.prepared()["case1.txt"] == "mended"
    assert machine.done_in_log() == ["case0", "case2", "case1"]


def test_a_record_that_cannot_be_read_is_made_anew_and_the_work_is_whole(
    machine_with: Callable[..., Machine],
) -> None:
    machine = machine_with("sandbox")
    machine.case(1, "broken")
    machine.typed(*machine.create, code=7)
    uid = machine.ongoing.uid
    (machine.ongoing.folder / "preparation.yaml").write_text("half: [")
    assert "cannot be read" in machine.typed("dataset", "prepare", "--data_uid", uid, code=8)
    assert f"Left out: {uid}" in machine.typed("dataset", "ls", "--local")
    machine.case(1, "whole")
    machine.typed(*machine.create)
    assert machine.done_in_log() == ["case0", "case1", "case2"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount the small disk that this needs")
def test_a_full_disk_keeps_the_work(
    machine_with: Callable[..., Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = machine_with("sandbox")
    disk = tmp_path / "medperf"
    kept = tmp_path / "kept"
    disk.rename(kept)
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)], check=True)
    try:
        shutil.copytree(kept, disk, dirs_exist_ok=True)
        machine.case(1, "x" * 17 * 1024**2)
        said = machine.typed(*machine.create, code=14)
        assert "is full" in said
        assert machine.report == CaseReport((Stage(8.0, "DONE", 1),), 1)
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        machine.case(1, "whole")
        machine.again()
        assert machine.done_in_log() == ["case0", "case1", "case2"]
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_what_is_left_of_a_preparation_that_ended_is_not_gone_on_with(
    machine_with: Callable[..., Machine],
) -> None:
    machine = machine_with("sandbox")
    machine.case(1, "unclear")
    machine.typed(*machine.create, code=7)
    (machine.ongoing.data / "case1.txt").write_text("mended")
    left, work = machine.site.folder / "left", machine.ongoing.work
    shutil.copytree(work, left)
    machine.again()
    # As where its command died when the dataset was there, and the work not removed.
    left.rename(work)
    assert "is prepared, as dataset" in machine.typed("dataset", "prepare", "--data_uid", "mine", code=2)
    machine.case(1, "whole")
    machine.typed(*machine.create)
    assert machine.done_in_log() == ["case0", "case2", "case1", "case0", "case1", "case2"]
