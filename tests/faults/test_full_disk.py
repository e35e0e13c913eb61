"""A full disk at every write of a command: a clear error, nothing half-written trusted, and with space it works.

MEDPERF_HOME and TMPDIR are on a tmpfs in a mount namespace of the commands' own, filled up to n pages, for n from
0 until the command works.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from faults.clients import Ended, Launcher, Terminal, launcher
from faults.federation import rows
from faults.stages import Stages
from tutorials.path import EmbeddedServer

SEED = int(os.environ.get("MEDPERF_FAULTS_SEED", "20261125"))
SAMPLE = int(os.environ.get("MEDPERF_FAULTS_SAMPLE", "10"))
# One server for the file, on one worker.
pytestmark = pytest.mark.xdist_group("faults-full_disk")
DISK_KIB = 16 * 1024
PAGE_BYTES = 4096
# From so many free pages on every step works: measured, and checked.
ENOUGH_PAGES = {"login": 4, "create": 90, "submit": 4, "associate": 90, "run": 90, "result submit": 6, "data": 40}
NAMESPACE = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--user", "--map-root-user", "--mount")


@dataclass
class SmallDisk:
    """A tmpfs that the launcher and its commands see; a test looks at it through the launcher."""

    launcher: Launcher
    path: Path

    def seen(self, path: Path) -> Path:
        return Path(f"/proc/{self.launcher.pid}/root{path}")

    def machine(self, original: Terminal, *, leave_pages: int) -> Terminal:
        """A copy of a machine on the disk, all but some pages of which are taken."""
        self.launcher.order(disk=str(self.path), empty=True)
        self.launcher.order(disk=str(self.path), copy=str(original.folder), to="site")
        (self.seen(self.path) / "tmp").mkdir()
        (self.seen(self.path) / "site" / "work").mkdir(exist_ok=True)
        self.launcher.order(disk=str(self.path), leave_bytes=leave_pages * PAGE_BYTES)
        screens = self.path.with_name("screens")
        return Terminal(self.launcher, self.path / "site", original.server, self.path / "tmp", screens=screens)

    def check_whole(self, machine: Terminal) -> None:
        looked = self.launcher.order(check=str(machine.home.root), server=machine.server)
        assert looked["fault"] is None, looked["fault"]

    def free(self) -> None:
        self.launcher.order(disk=str(self.path), free=True)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallDisk]:
    with launcher(*NAMESPACE) as begun:
        path = tmp_path_factory.mktemp("disk")
        begun.order(disk=str(path), mount_kib=DISK_KIB)
        yield SmallDisk(begun, path)


def pages(step: str) -> Iterator[int]:
    """From none to enough: the first ones, and a sample of the others."""
    most = ENOUGH_PAGES[step]
    others = range(4, most)
    chosen = [*range(min(4, most)), *random.Random(SEED).sample(others, min(SAMPLE, len(others)))]
    print(f"MEDPERF_FAULTS_SEED={SEED}: {len(chosen) + 1} of {most + 1} sizes")
    yield from sorted(chosen)
    yield most


def check_clear(ended: Ended, pages: int, disk: SmallDisk) -> None:
    about = f"with {pages} pages: {ended.exit_code}\n{ended.screen}"
    assert ended.exit_code in (0, 14), about
    if ended.exit_code:
        error = ended.screen[ended.screen.rindex("Error: ") :]
        assert "No space left" in error or "is full" in error, about
        said = error.partition("What to do:")[0]
        assert str(disk.path) in said or "medperf_tutorial" in said, about
        assert "Make space" in error, about
        assert "Traceback" not in ended.screen, about


Ready = Callable[[Terminal], tuple[tuple[str, ...], str]]


@pytest.mark.parametrize("step", ["login", "create", "run", "data"])
def test_a_step_that_sends_nothing(
    machine_at: Callable[[str], Terminal], stages: Stages, disk: SmallDisk, step: str
) -> None:
    original = machine_at("login" if step == "data" else step)
    typed = stages.commands().get(step, ("tutorial", "data"))
    codes = []
    for count in pages(step):
        machine = disk.machine(original, leave_pages=count)
        ended = machine.run(*typed, stdin="test\n")
        codes.append(ended.exit_code)
        check_clear(ended, count, disk)
        disk.free()
        if step != "data" or ended.exit_code:
            machine.done(*typed, stdin="test\n")
        disk.check_whole(machine)
    assert (codes[0], codes[-1]) == (14, 0), codes


@pytest.mark.parametrize("step", ["submit", "associate", "result submit"])
def test_a_step_that_sends_something_sends_it_once(
    machine_at: Callable[[str], Terminal], stages: Stages, small: EmbeddedServer, disk: SmallDisk, step: str
) -> None:
    codes = []
    for count in pages(step):
        original = machine_at("result submit" if step == "result submit" else "run")
        typed, query = ready(original, stages, step)
        machine = disk.machine(original, leave_pages=count)
        ended = machine.run(*typed)
        codes.append(ended.exit_code)
        check_clear(ended, count, disk)
        disk.free()
        machine.done(*typed)
        disk.check_whole(machine)
        service, _, statement = query.partition(": ")
        assert rows(small, service, statement) == [(1,)], query
    assert (codes[0], codes[-1]) == (14, 0), codes


def ready(original: Terminal, stages: Stages, step: str) -> tuple[tuple[str, ...], str]:
    """Something new to send; what is typed for it, and a query for what must then be there once."""
    if step == "result submit":
        number = stages.with_a_result(original)
        return stages.commands()[step], f"results: SELECT 1 FROM results WHERE dataset_id = {number}"
    uid = stages.with_another_dataset(original).generated_uid
    typed = ("dataset", "submit", "--data_uid", uid, "--yes")
    if step == "submit":
        return typed, f"registry: SELECT 1 FROM datasets WHERE generated_uid = '{uid}'"
    number = int(original.done(*typed).rpartition("Server UID: ")[2].split()[0])
    part = f"associations: SELECT 1 FROM associations WHERE part_kind = 'dataset' AND part_id = {number}"
    return ("dataset", "associate", "-b", "1", "--data_uid", str(number), "--yes"), part
