"""Two terminals at once, and Ctrl-C at a terminal: one works, the other says so; what is said is true."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pexpect
import pytest

from faults.clients import Begun, Terminal
from faults.federation import rows
from faults.local_folder import check_whole
from faults.stages import Stages
from medperf.credentials import Keyring
from medperf.journal import Journal
from tutorials.path import EmbeddedServer

SEED = int(os.environ.get("MEDPERF_FAULTS_SEED", "20261125"))
# One server for the file, on one worker.
pytestmark = pytest.mark.xdist_group("faults-terminals")
REFRESHES = 20
MachineAt = Callable[[str], Terminal]


def halted_at(machine: Terminal, text: str, *typed: str) -> Begun:
    """A command that has said something and is then held, so that another can be typed beside it."""
    begun = machine.begin(*typed)
    begun.wait_for(text)
    begun.send(signal.SIGSTOP)
    return begun


@pytest.mark.parametrize(
    ("step", "text"),
    [("create", "prepare begins"), ("run", "infer begins"), ("associate", "infer begins")],
)
def test_of_two_terminals_on_one_dataset_one_works_and_the_other_names_it(
    machine_at: MachineAt, stages: Stages, small: EmbeddedServer, step: str, text: str
) -> None:
    for _ in range(5):
        machine = machine_at("run" if step == "associate" else step)
        typed = stages.commands()[step]
        if step == "associate":
            uid = stages.with_another_dataset(machine).generated_uid
            said = machine.done("dataset", "submit", "--data_uid", uid, "--yes")
            typed = ("dataset", "associate", "-b", "1", "--data_uid", said.rpartition("UID: ")[2].strip(), "--yes")
        first = halted_at(machine, text, *typed)
        second = machine.run(*typed)
        assert second.exit_code == 12, second.screen
        if "writing in the journal" not in second.screen:
            break
        # Halted in the middle of a write of the journal: that is said too, but is not what is tried here.
        first.send(signal.SIGCONT)
        first.wait()
    assert f"(process {first.pid})" in second.screen
    first.send(signal.SIGCONT)
    ended = first.wait()
    assert ended.exit_code == 0, ended.screen
    check_whole(machine.home)


def test_of_two_terminals_that_submit_one_result_at_once_one_sends_it(
    machine_at: MachineAt, stages: Stages, small: EmbeddedServer
) -> None:
    typed = stages.commands()["result submit"]
    for _ in range(5):
        machine = machine_at("result submit")
        number = stages.with_a_result(machine)
        begun = [machine.begin(*typed), machine.begin(*typed)]
        codes = sorted(one.wait().exit_code for one in begun)
        assert codes in ([0, 0], [0, 12]), [one.screen() for one in begun]
        assert rows(small, "results", "SELECT count(*) FROM results WHERE dataset_id = ?", number) == [(1,)]
        assert "already" in machine.done("result", "submit", "--result", f"b1m4d{number}")


def test_of_two_terminals_that_submit_one_dataset_at_once_both_end_with_its_one_id(
    machine_at: MachineAt, stages: Stages, small: EmbeddedServer
) -> None:
    for _ in range(5):
        machine = machine_at("submit")
        uid = stages.with_another_dataset(machine).generated_uid
        typed = ("dataset", "submit", "--data_uid", uid, "--yes")
        begun = [machine.begin(*typed), machine.begin(*typed)]
        codes = sorted(one.wait().exit_code for one in begun)
        assert codes in ([0, 0], [0, 12]), [one.screen() for one in begun]
        [(server_id,)] = rows(small, "registry", "SELECT id FROM datasets WHERE generated_uid = ?", uid)
        assert f"Server UID: {server_id}" in machine.done(*typed)


def test_two_terminals_on_two_datasets_both_work(machine_at: MachineAt, stages: Stages, tmp_path: Path) -> None:
    machine = machine_at("create")
    first = stages.commands()["create"]
    other = tmp_path / "other" / "images"
    other.mkdir(parents=True)
    (other / "case0.txt").write_text("another hospital's")
    second = tuple(str(other) if word == str(stages.raw / "images") else word for word in first)
    held = halted_at(machine, "prepare begins", *first)
    machine.done(*second)
    held.send(signal.SIGCONT)
    assert held.wait().exit_code == 0
    assert machine.done("dataset", "ls", "--local").count("mine") == 2
    check_whole(machine.home)


def test_two_terminals_that_renew_the_login_at_once_do_not_lose_it(machine_at: MachineAt) -> None:
    machine = machine_at("login")
    machine.done("login", "--username", "testdataowner", "--password_stdin", stdin="test\n")
    keyring = Keyring(machine.home.credentials)
    for _ in range(REFRESHES):
        kept = keyring.load()
        assert kept is not None
        keyring.keep(replace(kept, expires_at=time.time()))
        begun = [machine.begin("auth", "status"), machine.begin("auth", "status")]
        for one in begun:
            ended = one.wait()
            assert ended.exit_code == 0, ended.screen
        renewed = keyring.load()
        assert renewed is not None
        assert renewed.refresh_token != kept.refresh_token


def test_a_client_killed_at_any_time_of_a_container_takes_it_along(machine_at: MachineAt, stages: Stages) -> None:
    dice = random.Random(SEED)
    print(f"MEDPERF_FAULTS_SEED={SEED}")
    for _ in range(8):
        machine = machine_at("create")
        begun = machine.begin(*stages.commands()["create"])
        begun.wait_for("[1/4] prepare")
        time.sleep(dice.uniform(0, 0.5))
        begun.send(signal.SIGKILL)
        begun.wait()
        # Nothing that works in this machine's folder is left.
        deadline = time.monotonic() + 5
        while left := working_in(machine.folder):
            assert time.monotonic() < deadline, left
            time.sleep(0.02)
        machine.done(*stages.commands()["create"])
        check_whole(machine.home)


def working_in(folder: Path) -> list[str]:
    """Processes, but zombies, that have a mount of this folder or name it."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                text = (process / "cmdline").read_text() + (process / "mountinfo").read_text()
                if str(folder) in text:
                    found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    ("step", "text", "said"),
    [
        ("login", "(?i)password: ", "Interrupted: nothing was sent."),
        ("create", "prepare begins", "Interrupted. What was finished is kept"),
        ("submit", r"Register this dataset\? \[y/N\]: ", "Interrupted: nothing was sent."),
        ("associate", "infer begins", "Interrupted. What was finished is kept"),
        ("run", "infer begins", "Interrupted. What was finished is kept"),
        ("result submit", r"It cannot be changed afterwards. \[y/N\]: ", "Interrupted: nothing was sent."),
    ],
)
def test_ctrl_c_at_a_terminal_is_exit_130_and_what_is_said_is_true(
    machine_at: MachineAt, stages: Stages, small: EmbeddedServer, step: str, text: str, said: str
) -> None:
    machine = machine_at(step)
    typed = [word for word in stages.commands()[step] if word not in ("--yes", "--password_stdin")]
    if step == "submit":
        typed[3] = stages.with_another_dataset(machine).generated_uid
    elif step == "result submit":
        stages.with_a_result(machine)
    elif step == "associate":
        machine = machine_at("run")
        uid = stages.with_another_dataset(machine).generated_uid
        typed[-1] = machine.done("dataset", "submit", "--data_uid", uid, "--yes").rpartition("UID: ")[2].strip()
    before = told_to(small)
    with machine.at_a_terminal(*typed) as terminal:
        terminal.expect(text)
        terminal.sendintr()
        terminal.expect(said.replace(".", r"\."))
        terminal.expect(pexpect.EOF)
    assert terminal.exitstatus == 130
    assert told_to(small) == before
    check_whole(machine.home)
    if machine.home.root.is_dir():
        states = {record.state.value for record in Journal(machine.home.journal).runs()}
        assert states <= {"done", "cancelled"}


def told_to(server: EmbeddedServer) -> list[list[tuple[object, ...]]]:
    """What the server was told by data owners."""
    tables = {"registry": "datasets", "associations": "associations", "results": "results"}
    return [rows(server, service, f"SELECT count(*) FROM {table}") for service, table in tables.items()]
