"""Names that are not text, of folders, mounts and processes, and a local folder that is reached through a link."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from containers.attack import AS_ROOT
from containers.small import Site
from medperf.cli.main import run
from medperf.client_process import _process_start
from medperf.engines.launch import threads_of
from medperf.home import Home
from medperf.journal import Journal
from medperf.manifest import Role
from medperf.preparation import Description, prepare

SERVER = "http://localhost:8000"
# "é" has two bytes, and the kernel cuts a name after 15.
_NAMED_IN_HALF = """
import ctypes, time
ctypes.CDLL(None).prctl(15, "éééééééé".encode(), 0, 0, 0)
print("named", flush=True)
time.sleep(600)
"""
_WITH_A_MOUNT = """
import os, sys
from pathlib import Path
from medperf.engines.cgroup import read_hierarchies
from medperf.engines.mounts import mounted_inside
from medperf.engines.sandbox import SandboxEngine
read_hierarchies()
print(ascii(mounted_inside(Path(sys.argv[1]))))
SandboxEngine(Path("/nowhere")).probe()
"""


def test_a_local_folder_behind_a_link_has_the_name_that_it_has_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    monkeypatch.setenv("MEDPERF_HOME", str(tmp_path / "link"))
    assert Home.at(SERVER).root == tmp_path / "disk" / "localhost_8000"
    monkeypatch.delenv("MEDPERF_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "link"))
    assert Home.at(SERVER).root == tmp_path / "disk" / ".medperf" / "localhost_8000"
    (tmp_path / "elsewhere").mkdir()
    Home.at(SERVER).root.parent.mkdir()
    Home.at(SERVER).root.symlink_to(tmp_path / "elsewhere")
    assert Home.at(SERVER).root == tmp_path / "elsewhere"


def test_data_is_prepared_in_a_local_folder_behind_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(tmp_path)
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    monkeypatch.setenv("MEDPERF_HOME", str(tmp_path / "link"))
    site.home = Home.at(SERVER)
    site.journal = Journal(site.home.journal)
    made = prepare(
        site.runner(),
        site.container(1, Role.PREPARATION),
        data_path=site.data,
        labels_path=site.labels,
        about=Description("chest", "x-rays", "Lyon"),
        step=lambda _name: nullcontext(),
    )
    assert made.statistics["cases"] == 3


def test_links_in_a_circle_are_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    monkeypatch.setenv("MEDPERF_HOME", str(tmp_path / "one"))
    assert run(["auth", "status"]) == 2
    assert "MEDPERF_HOME" in capsys.readouterr().err


@pytest.fixture
def named_in_half() -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", _NAMED_IN_HALF], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        assert process.stdout.readline() == "named\n"
        with pytest.raises(UnicodeDecodeError):
            Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8")
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def test_a_process_whose_name_ends_in_half_a_character_is_counted_and_found(named_in_half: int) -> None:
    assert threads_of(os.getuid()) > 1
    assert str(_process_start(named_in_half)).isdigit()


@pytest.mark.skipif(not AS_ROOT, reason="only root can mount the file system that this needs")
def test_a_mount_whose_name_is_no_text_is_seen_and_keeps_no_sandbox_from_working(tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/caf\xe9\rau lait"
    Path(os.fsdecode(odd)).mkdir()
    mount = 'mount -t tmpfs none "$1" && exec "$2" -c "$3" "$4"'
    ran = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount, "sh", odd, sys.executable, _WITH_A_MOUNT, tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == f"{[Path(os.fsdecode(odd))]!a}\n"
