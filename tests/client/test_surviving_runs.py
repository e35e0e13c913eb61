"""Runs whose client, engine or machine goes in the middle: gone on with, done again, ended; never done twice."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import docker
import pytest

from containers.attack import eventually
from containers.images import image_name, small_images
from containers.small import Site, prepared_dataset
from medperf.api import Gateway
from medperf.causes import NEXT_STEP, Cause
from medperf.datasets import find_dataset
from medperf.engines.docker_options import HOME_LABEL, RUN_LABEL
from medperf.evaluation import find_evaluation
from medperf.home import Home
from medperf.journal import Journal, Run, RunState
from medperf.manifest import Role
from medperf.preferences import Preferences
from peers.benchmark_server import BenchmarkServer
from peers.scripted_peer import ScriptedPeer

MEDPERF = str(Path(sys.executable).with_name("medperf"))
RUN = ("benchmark", "run", "--benchmark", "1", "--data_uid", "9")
MODEL, METRICS = 2, 3


@pytest.fixture(scope="module")
def daemon(base_image: str) -> Iterator[docker.DockerClient]:
    with closing(docker.from_env()) as client:
        yield client


@pytest.fixture(scope="module")
def images(
    daemon: docker.DockerClient, base_image: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[Role, str]:
    return small_images(daemon, base_image, tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def dataset_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset prepared once; tests work on copies."""
    return prepared_dataset(tmp_path_factory.mktemp("prepared"))


class Machine:
    """A data owner's machine with a dataset in a benchmark of one model, whose commands are real processes."""

    def __init__(self, site: Site, server: BenchmarkServer, platform: str) -> None:
        self.site = site
        self.server = server
        self.platform = platform
        self.home = site.home
        self.journal = site.journal
        self.begun: list[subprocess.Popen[str]] = []

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin a command."""
        command = subprocess.Popen(
            [MEDPERF, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.begun.append(command)
        return command

    def typed(self, *arguments: str, code: int = 0) -> str:
        """What a command says that ends with this code."""
        command = self.begin(*arguments)
        said, _ = command.communicate(timeout=120)
        assert command.returncode == code, said
        return said

    def killed(self, *arguments: str) -> Run:
        """The run of a command that is killed as soon as its model has begun to write."""
        command = self.begin(*arguments)
        assert eventually(self.is_writing, seconds=60), command.poll()
        command.kill()
        command.wait()
        return self.runs()[0]

    def is_writing(self) -> bool:
        """Whether the newest run of a model has written half of what it will."""
        return any(
            (self.home.runs / run.id / "work" / "output_path" / "predictions.csv").exists()
            for run in self.runs()[:1]
        )

    def register_model(self, fault: str) -> None:
        """Have the benchmark's model be another one."""
        known = self.site.shelf.views[MODEL]
        image = (
            {} if known.image_hash is None else {"image": image_name(Role.MODEL), "image_hash": known.image_hash}
        )
        self.site.shelf.register(MODEL, Role.MODEL, fault=fault, **image)

    def runs(self, task: str = "infer") -> list[Run]:
        return [run for run in self.journal.runs() if run.task == task]

    def cases(self) -> int:
        """Of how many cases the result that is kept tells."""
        [kept] = [
            find_evaluation(self.home, folder.name)
            for folder in self.home.results.glob("*")
            if len(folder.name) == 64
        ]
        assert kept is not None
        return int(kept.metrics["counts"]["cases"])  # type: ignore[index,call-overload]

    def changed(self, run: Run, **values: Any) -> None:
        """Write other facts of a run into the journal: time goes by, a machine is started again."""
        with closing(sqlite3.connect(self.home.journal)) as journal, journal:
            for name, value in values.items():
                journal.execute(f"UPDATE runs SET {name} = ? WHERE id = ?", (value, run.id))


@pytest.fixture
def machine_with(
    tmp_path: Path, dataset_folder: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Machine]]:
    """Make a machine: its platform, and what its model and its metrics do wrong."""
    begun: list[Machine] = []
    peers: list[ScriptedPeer] = []

    def make(platform: str, model: str, metrics: str = "") -> Machine:
        site = Site(tmp_path)
        answering = BenchmarkServer(site.shelf)
        answering.models = [MODEL]
        images = request.getfixturevalue("images") if platform == "docker" else {}
        for number, role, fault in ((MODEL, Role.MODEL, model), (METRICS, Role.METRICS, metrics)):
            image = {"image": image_name(role), "image_hash": images[role]} if images else {}
            site.shelf.register(number, role, fault=fault, **image)
        peer = ScriptedPeer(answering)
        peers.append(peer.__enter__())
        monkeypatch.setenv("MEDPERF_SERVER", peer.url)
        monkeypatch.setenv("MEDPERF_HOME", str(tmp_path / "medperf"))
        site.home = Home.at(peer.url)
        site.journal = Journal(site.home.journal)
        Preferences(platform=platform).save(site.home.preferences)
        with Gateway(site.home) as gateway:
            gateway.login("ada", "test")
        shutil.copytree(dataset_folder, site.home.datasets / dataset_folder.name)
        find_dataset(site.home, dataset_folder.name).linked_to(9)
        begun.append(Machine(site, answering, platform))
        return begun[-1]

    yield make
    for machine in begun:
        for command in machine.begun:
            if command.poll() is None:
                command.kill()
            command.communicate()
    for peer in peers:
        peer.__exit__(None, None, None)


def containers(daemon: docker.DockerClient, machine: Machine) -> list[Any]:
    found: list[Any] = daemon.containers.list(all=True, filters={"label": f"{HOME_LABEL}={machine.home.root}"})
    return found


# A client that was killed


def test_a_container_that_goes_on_is_found_again_and_waited_for(
    machine_with: Callable[..., Machine], daemon: docker.DockerClient
) -> None:
    machine = machine_with("docker", "writes for 8")
    run = machine.killed(*RUN)
    [container] = containers(daemon, machine)
    said = machine.typed(*RUN)
    assert "goes on with infer of small-model-2, which an earlier command began" in said
    [again] = machine.runs()
    assert (again.id, again.state, again.exit_code) == (run.id, RunState.DONE, 0)
    assert container.labels[RUN_LABEL] == run.id
    assert machine.cases() == 3
    # All that it printed, before and after.
    log = (machine.home.runs / run.id / "task.log").read_text()
    assert log.splitlines() == ["infer begins", "infer: secret of a patient"]
    assert containers(daemon, machine) == []
    assert list(machine.home.runs.glob("*/work")) == []


def test_a_container_that_ended_while_nobody_looked_is_not_run_again(
    machine_with: Callable[..., Machine], daemon: docker.DockerClient
) -> None:
    machine = machine_with("docker", "writes for 2")
    run = machine.killed(*RUN)
    assert eventually(lambda: [it.status for it in containers(daemon, machine)] == ["exited"], seconds=30)
    machine.typed(*RUN)
    assert [(it.id, it.state) for it in machine.runs()] == [(run.id, RunState.DONE)]
    assert machine.cases() == 3


def test_one_that_failed_while_nobody_looked_has_failed(
    machine_with: Callable[..., Machine], daemon: docker.DockerClient
) -> None:
    machine = machine_with("docker", "writes for 2, then fails")
    run = machine.killed(*RUN)
    assert eventually(lambda: [it.status for it in containers(daemon, machine)] == ["exited"], seconds=30)
    said = machine.typed(*RUN, code=7)
    assert "ended with exit code 3" in said
    assert [(it.id, it.state, it.exit_code) for it in machine.runs()] == [(run.id, RunState.FAILED, 3)]


def test_one_that_was_made_and_never_started_is_begun_again(
    machine_with: Callable[..., Machine], daemon: docker.DockerClient, images: dict[Role, str]
) -> None:
    machine = machine_with("docker", "writes for 4")
    run = machine.killed(*RUN)
    for container in containers(daemon, machine):
        container.remove(force=True)
    daemon.containers.create(
        images[Role.MODEL], labels={RUN_LABEL: run.id, HOME_LABEL: str(machine.home.root)}, network_mode="none"
    )
    machine.typed(*RUN)
    again, first = machine.runs()
    assert (first.id, first.state, first.cause) == (run.id, RunState.FAILED, Cause.CLIENT_GONE)
    assert again.state is RunState.DONE
    assert containers(daemon, machine) == []
    assert machine.cases() == 3


def test_in_the_sandbox_the_run_dies_with_its_client_and_is_begun_again(
    machine_with: Callable[..., Machine],
) -> None:
    machine = machine_with("sandbox", "writes for 2")
    run = machine.killed(*RUN)
    machine.typed(*RUN)
    again, first = machine.runs()
    assert (first.id, first.state, first.cause) == (run.id, RunState.FAILED, Cause.CLIENT_GONE)
    assert (again.state, machine.cases()) == (RunState.DONE, 3)


@pytest.mark.guarantee("killed")
def test_its_time_limit_counts_from_its_own_start(
    machine_with: Callable[..., Machine], daemon: docker.DockerClient
) -> None:
    machine = machine_with("docker", "writes for 600")
    run = machine.killed(*RUN, "--time_limit", "10")
    time.sleep(5)
    said = machine.typed(*RUN, "--time_limit", "100", code=7)
    assert "ran longer than its limit of 10 s" in said
    [ended] = machine.runs()
    assert (ended.id, ended.cause) == (run.id, Cause.TIME_LIMIT)
    assert ended.started_at is not None
    assert ended.finished_at is not None
    assert (ended.finished_at - ended.started_at).total_seconds() < 14


def test_one_that_ended_in_time_is_taken_however_late_it_is_looked_for(
    machine_with: Callable[..., Machine], daemon: docker.DockerClient
) -> None:
    machine = machine_with("docker", "writes for 2")
    run = machine.killed(*RUN, "--time_limit", "6")
    assert eventually(lambda: [it.status for it in containers(daemon, machine)] == ["exited"], seconds=30)
    time.sleep(6)
    machine.typed(*RUN)
    [ended] = machine.runs()
    assert (ended.id, ended.state, machine.cases()) == (run.id, RunState.DONE, 3)
    # It took as long as it ran, not as long as nobody looked.
    assert ended.started_at is not None
    assert ended.finished_at is not None
    assert (ended.finished_at - ended.started_at).total_seconds() < 5


@pytest.mark.guarantee("killed")
def test_one_that_nobody_went_on_with_is_ended_when_its_time_is_over(
    machine_with: Callable[..., Machine], daemon: docker.DockerClient
) -> None:
    machine = machine_with("docker", "writes for 600")
    run = machine.killed(*RUN)
    machine.changed(run, started_at=(datetime.now(UTC) - timedelta(days=2)).isoformat())
    # Of other content: nobody goes on with it.
    machine.register_model("none, but another hash")
    machine.typed(*RUN)
    ended = machine.journal.find(run.id)
    assert (ended.state, ended.cause) == (RunState.FAILED, Cause.TIME_LIMIT)
    assert containers(daemon, machine) == []


def test_after_a_restart_of_the_machine_it_is_begun_again_even_if_its_container_ended_well(
    machine_with: Callable[..., Machine], daemon: docker.DockerClient
) -> None:
    machine = machine_with("docker", "writes for 1")
    run = machine.killed(*RUN)
    assert eventually(lambda: [it.status for it in containers(daemon, machine)] == ["exited"], seconds=30)
    machine.changed(run, boot_id="an earlier boot")
    machine.typed(*RUN)
    again, first = machine.runs()
    assert (first.id, first.state, first.cause) == (run.id, RunState.FAILED, Cause.CLIENT_GONE)
    assert (again.state, machine.cases()) == (RunState.DONE, 3)


# What a run wrote for a command that could not use it


def test_a_model_is_not_run_again_after_the_metrics_failed(machine_with: Callable[..., Machine]) -> None:
    machine = machine_with("sandbox", "", metrics="evaluate")
    said = machine.typed(*RUN, code=7)
    [run] = machine.runs()
    assert run.holds_outputs
    assert "What infer of small-model-2 wrote is kept for 7 days" in said
    machine.site.shelf.register(METRICS, Role.METRICS)
    # Also where the machine was started again: what is kept reached the disk first.
    machine.changed(run, boot_id="an earlier boot")
    assert "goes on with what infer of small-model-2" in machine.typed(*RUN)
    assert [(it.id, it.state, it.holds_outputs) for it in machine.runs()] == [(run.id, RunState.DONE, False)]
    assert machine.cases() == 3
    assert list(machine.home.runs.glob("*/work")) == []


def test_what_is_kept_is_removed_after_its_time(machine_with: Callable[..., Machine]) -> None:
    machine = machine_with("sandbox", "", metrics="evaluate")
    machine.typed(*RUN, code=7)
    [run] = machine.runs()
    machine.changed(run, finished_at=(datetime.now(UTC) - timedelta(days=7, minutes=1)).isoformat())
    machine.typed(*RUN, code=7)
    again, first = machine.runs()
    assert (first.id, first.holds_outputs, again.holds_outputs) == (run.id, False, True)
    assert [folder.parent.name for folder in machine.home.runs.glob("*/work")] == [again.id]


def test_what_is_kept_is_gone_on_with_only_on_the_same_content(machine_with: Callable[..., Machine]) -> None:
    machine = machine_with("sandbox", "", metrics="evaluate")
    machine.typed(*RUN, code=7)
    machine.register_model("none, but another hash")
    machine.typed(*RUN, code=7)
    assert len(machine.runs()) == 2


def test_what_another_engine_wrote_is_left_to_it(machine_with: Callable[..., Machine]) -> None:
    machine = machine_with("sandbox", "", metrics="evaluate")
    machine.typed(*RUN, code=7)
    [run] = machine.runs()
    machine.changed(run, engine="docker")
    machine.typed(*RUN, code=7)
    again, first = machine.runs()
    assert (first.id, first.holds_outputs, again.engine) == (run.id, True, "sandbox")


def test_two_commands_never_go_on_with_the_same_run(machine_with: Callable[..., Machine]) -> None:
    machine = machine_with("sandbox", "", metrics="evaluate")
    machine.typed(*RUN, code=7)
    first, second = Journal(machine.home.journal), Journal(machine.home.journal)
    key = machine.runs()[0].work_key
    assert key is not None
    [seen], [seen_too] = first.resumable(key), second.resumable(key)
    assert first.take_over(seen)
    assert not second.take_over(seen_too)
    assert second.resumable(key) == []


# Looked at and ended by a person


@pytest.mark.parametrize("platform", ["sandbox", "docker"])
def test_a_run_is_listed_followed_and_cancelled_from_another_terminal(
    machine_with: Callable[..., Machine], platform: str
) -> None:
    machine = machine_with(platform, "writes for 600")
    command = machine.begin(*RUN)
    assert eventually(machine.is_writing, seconds=60)
    [run] = machine.runs()
    listed = machine.typed("run", "ls")
    assert listed.splitlines()[-1].split()[:5] == [run.short_id, "small-model-2", "infer", platform, "running"]
    follower = machine.begin("run", "logs", run.short_id, "--follow")
    assert machine.typed("run", "logs", run.short_id) == "infer begins\n"
    said = machine.typed("run", "cancel", run.short_id, "--yes")
    assert f"Run {run.short_id} (infer of small-model-2): cancelled: cancelled." in said
    out, _ = command.communicate(timeout=30)
    assert (command.returncode, "was stopped" in out) == (7, True)
    assert follower.communicate(timeout=30)[0] == "infer begins\n"
    shown = machine.typed("run", "show", run.id)
    assert "cause: cancelled" in shown
    assert NEXT_STEP[Cause.CANCELLED] in shown
    assert "has ended before: cancelled" in machine.typed("run", "cancel", run.id, "--yes")
    assert list(machine.home.runs.glob("*/work")) == []


def test_a_run_that_its_command_left_is_cancelled(
    machine_with: Callable[..., Machine], daemon: docker.DockerClient
) -> None:
    machine = machine_with("docker", "writes for 600")
    run = machine.killed(*RUN)
    assert "running, left by its command" in machine.typed("run", "ls")
    assert "the same command again goes on with it" in machine.typed("run", "show", run.id)
    said = machine.typed("run", "logs", run.short_id, "--follow")
    assert "Its command was killed" in said
    assert "There is no terminal to ask: End infer of small-model-2" in machine.typed(
        "run", "cancel", run.short_id, code=3
    )
    machine.typed("run", "cancel", run.short_id, "--yes")
    assert containers(daemon, machine) == []
    assert machine.journal.find(run.id).cause is Cause.CANCELLED
    assert list(machine.home.runs.glob("*/work")) == []


def test_what_a_run_wrote_is_removed_by_cancelling_it(machine_with: Callable[..., Machine]) -> None:
    machine = machine_with("sandbox", "", metrics="evaluate")
    machine.typed(*RUN, code=7)
    [run] = machine.runs()
    assert "done, outputs kept" in machine.typed("run", "ls", "--state", "done")
    machine.typed("run", "cancel", run.short_id, "--yes")
    assert not machine.journal.find(run.id).holds_outputs
    assert list(machine.home.runs.glob("*/work")) == []


def test_a_run_is_named_by_enough_of_its_uid(machine_with: Callable[..., Machine]) -> None:
    machine = machine_with("sandbox", "")
    assert "There are no such runs." in machine.typed("run", "ls")
    for typed, said in (("ab", "too short"), ("0000abcd", "There is no run 0000abcd")):
        assert said in machine.typed("run", "show", typed, code=2)
    for last in "12":
        machine.journal.open_run(
            purpose="benchmark run",
            container_hash="0" * 64,
            container_name="model",
            task="infer",
            dataset_uid=None,
            engine="sandbox",
            limits={},
            run_id=f"abcdef0{last}-0000-4000-8000-000000000000",
        )
    assert "2 runs begin with abcdef" in machine.typed("run", "logs", "abcdef", code=2)
    assert "has no log" in machine.typed("run", "logs", "abcdef01", code=2)
