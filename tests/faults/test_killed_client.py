"""A command killed or interrupted whenever it touches the world, then typed again: it ends as if nothing had been.

A command is killed before the n-th time that it opens a file for writing, makes, renames or removes something,
opens the journal, starts a process or connects. Where a step runs containers, a seeded sample of the n is taken.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults.clients import Ended, Terminal
from faults.federation import rows
from faults.local_folder import check_whole, picture
from faults.stages import Stages
from medperf_contracts.associations import AssociationDecision, AssociationView
from tutorials.path import EmbeddedServer

SEED = int(os.environ.get("MEDPERF_FAULTS_SEED", "20261125"))
# The whole, once in a while: MEDPERF_FAULTS_SAMPLE=1000, a quarter of an hour.
SAMPLE = int(os.environ.get("MEDPERF_FAULTS_SAMPLE", "10"))
# One server for the file, on one worker.
pytestmark = pytest.mark.xdist_group("faults-killed_client")
HOW = (signal.SIGKILL, signal.SIGINT)
MachineAt = Callable[[str], Terminal]


def moments(touches: int, most: int | None = None) -> Iterator[tuple[int, signal.Signals]]:
    """When, and by which signal: every touch, or a sample with the last ones; the signals in turn."""
    places = list(range(1, touches + 1))
    if most is not None and most < touches:
        chosen = random.Random(SEED).sample(places[:-3], most - 3)
        places = sorted(chosen) + places[-3:]
    print(f"MEDPERF_FAULTS_SEED={SEED}: {len(places)} of {touches} moments")
    for number, place in enumerate(places):
        yield place, HOW[number % 2]


def stopped(ended: Ended, by: signal.Signals) -> None:
    """A command ended as it must after that signal, at a moment or after its work."""
    if by is signal.SIGKILL:
        assert ended.exit_code == -signal.SIGKILL, ended
    else:
        assert ended.exit_code == 130, ended
        assert "Interrupted" in ended.screen
        assert "Traceback" not in ended.screen


def test_login(machine_at: MachineAt, stages: Stages) -> None:
    typed = stages.commands()["login"]
    whole = machine_at("login")
    touches = whole.run(*typed, stdin="test\n").touches
    for at, by in moments(touches):
        machine = machine_at("login")
        stopped(machine.run(*typed, stdin="test\n", at=at, by=by), by)
        machine.done(*typed, stdin="test\n")
        machine.done("auth", "status")
        check_whole(machine.home)
        assert picture(machine.home) == picture(whole.home), (at, by)


@pytest.mark.parametrize("step", ["create", "run"])
def test_steps_that_run_containers_and_send_nothing(machine_at: MachineAt, stages: Stages, step: str) -> None:
    typed = stages.commands()[step]
    whole = machine_at(step)
    ended = whole.run(*typed)
    assert ended.exit_code == 0, ended.screen
    for at, by in moments(ended.touches, SAMPLE):
        machine = machine_at(step)
        stopped(machine.run(*typed, at=at, by=by), by)
        machine.done(*typed)
        check_whole(machine.home)
        assert picture(machine.home) == picture(whole.home), (at, by)


def test_dataset_submit(machine_at: MachineAt, stages: Stages, small: EmbeddedServer) -> None:
    def ready() -> tuple[Terminal, tuple[str, ...], str]:
        machine = machine_at("submit")
        uid = stages.with_another_dataset(machine).generated_uid
        return machine, ("dataset", "submit", "--data_uid", uid, "--yes"), uid

    machine, typed, _ = ready()
    for at, by in moments(machine.run(*typed).touches):
        machine, typed, uid = ready()
        stopped(machine.run(*typed, at=at, by=by), by)
        machine.done(*typed)
        [(server_id,)] = rows(small, "registry", "SELECT id FROM datasets WHERE generated_uid = ?", uid)
        assert f"server_id: {server_id}\n" in (machine.home.datasets / uid / "dataset.yaml").read_text()
        check_whole(machine.home)


def test_dataset_associate(machine_at: MachineAt, stages: Stages, small: EmbeddedServer) -> None:
    def ready() -> tuple[Terminal, tuple[str, ...], int]:
        machine = machine_at("run")  # its containers are here already, and the reference model's result
        for folder in machine.home.results.iterdir():
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
        made = stages.with_another_dataset(machine)
        registered = machine.done("dataset", "submit", "--data_uid", made.generated_uid, "--yes")
        uid = registered.rpartition("Server UID: ")[2].split()[0]
        return machine, ("dataset", "associate", "-b", "1", "--data_uid", uid, "--yes"), int(uid)

    machine, typed, _ = ready()
    for at, by in moments(machine.run(*typed).touches, SAMPLE):
        machine, typed, uid = ready()
        stopped(machine.run(*typed, at=at, by=by), by)
        assert "is PENDING" in machine.done(*typed)
        part = "SELECT state FROM associations WHERE part_kind = 'dataset' AND part_id = ?"
        assert rows(small, "associations", part, uid) == [("PENDING",)]
        check_whole(machine.home)


def test_result_submit(machine_at: MachineAt, stages: Stages, small: EmbeddedServer) -> None:
    def ready() -> tuple[Terminal, int]:
        machine = machine_at("result submit")
        return machine, stages.with_a_result(machine)

    typed = stages.commands()["result submit"]
    machine, _ = ready()
    for at, by in moments(machine.run(*typed).touches):
        machine, dataset_id = ready()
        stopped(machine.run(*typed, at=at, by=by), by)
        machine.done(*typed)
        [(result_id,)] = rows(small, "results", "SELECT id FROM results WHERE dataset_id = ?", dataset_id)
        shown = machine.done("result", "submit", "--result", f"b1m4d{dataset_id}")
        assert f"already, as result {result_id}" in shown
        check_whole(machine.home)


def test_tutorial_data(machine_at: MachineAt) -> None:
    whole = machine_at("login")
    for at, by in moments(whole.run("tutorial", "data").touches):
        machine = machine_at("login")
        stopped(machine.run("tutorial", "data", at=at, by=by), by)
        machine.done("tutorial", "data")
        assert files_below(machine.folder / "work") == files_below(whole.folder / "work"), (at, by)


def test_tutorial_clean(machine_at: MachineAt, stages: Stages, tmp_path: Path) -> None:
    def ready() -> Terminal:
        machine = machine_at("submit")
        machine.done("tutorial", "data")
        made = machine.folder / "work" / "medperf_tutorial" / "mock_chexpert"
        # Its dataset is the small one, as if it had been prepared from the tutorial's folder.
        for record in machine.home.datasets.glob("*/dataset.yaml"):
            text = record.read_text().replace(str(stages.raw / "images"), str(made / "images"))
            record.write_text(text.replace(str(stages.raw / "labels"), str(made / "labels")))
        return machine

    whole = ready()
    ended = whole.run("tutorial", "clean", "--yes")
    assert not whole.home.root.exists(), ended.screen
    for at, by in moments(ended.touches, 3 * SAMPLE):
        machine = ready()
        stopped(machine.run("tutorial", "clean", "--yes", at=at, by=by), by)
        machine.done("tutorial", "clean", "--yes")
        assert files_below(machine.folder / "work") == []
        assert files_below(machine.home.root) == [], (at, by)


def test_logout(machine_at: MachineAt) -> None:
    # Each has a login of its own: a login that ended on the server is ended for every copy of it.
    def ready() -> Terminal:
        machine = machine_at("login")
        machine.done("login", "--username", "testdataowner", "--password_stdin", stdin="test\n")
        return machine

    for at, by in moments(ready().run("logout").touches):
        machine = ready()
        stopped(machine.run("logout", at=at, by=by), by)
        machine.done("logout")
        assert machine.run("auth", "status").exit_code == 4
        check_whole(machine.home)


def files_below(folder: Path) -> list[str]:
    """Every file and folder below one, but locks."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix != ".lock")


def decided(stages: Stages, machine: Terminal, association_id: int) -> AssociationView:
    """The committee approves."""
    with stages.committee(machine) as committee:
        path = f"/associations/{association_id}/approve"
        return committee.post(path, AssociationDecision(reason=""), AssociationView)
