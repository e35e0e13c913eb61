"""The client's two wheels on a machine of their own: nothing of the server, no name of ours asked of an index."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
LOCKS = sorted((PROJECT / "requirements").glob("*.txt"))
COMMAND_SECONDS = 120
SERVER_ONLY = (
    *("services", "tutorials", "sqlalchemy", "alembic", "aiosqlite", "asyncpg", "fastapi", "starlette", "uvicorn"),
    *("aio_pika", "argon2", "joserfc", "structlog"),
)

pytestmark = pytest.mark.xdist_group("wheels")


class Machine:
    """A virtual environment with the client's locked third parties, and a working folder far from the project."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = folder / "venv" / "bin"
        venv.create(folder / "venv", with_pip=True)

    def run(self, program: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        unseen = ("PYTHON", "MEDPERF", "VIRTUAL_ENV")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(unseen)}
        environment |= {"MEDPERF_HOME": str(self.folder / "medperf_home")} | more
        return subprocess.run(
            [self.programs / program, *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )

    def install_from(self, index: str, *wheels: Path) -> subprocess.CompletedProcess[str]:
        """Install with this index and no other source: neither this machine's settings nor its folders count."""
        nowhere = {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_FIND_LINKS": "",
            "PIP_EXTRA_INDEX_URL": "",
            "PIP_NO_INDEX": "0",
        }
        options = ("--quiet", "--disable-pip-version-check", "--retries", "0", "--index-url", index)
        return self.run("python", "-m", "pip", "install", *options, *map(str, wheels), **nowhere)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What `make wheels` builds, by distribution; from a copy, so that the project's own `dist` stays as it is."""
    copy = project_copy(tmp_path_factory.mktemp("made") / "project")
    done = subprocess.run(
        ["make", "--old-file=setup", "wheels"],
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.name.split("-")[0]: path for path in (copy / "dist").iterdir()}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A machine that has the client's third parties, and nothing of the project yet."""
    made = Machine(tmp_path_factory.mktemp("machine"))
    lock = str(PROJECT / "requirements" / "client.txt")
    done = made.run("python", "-m", "pip", "install", "--quiet", "--require-hashes", "-r", lock)
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture(scope="module")
def installed(machine: Machine, wheels: dict[str, Path]) -> Machine:
    """The machine with both wheels, given by path; the index saw no request at all."""
    with recording_index() as (index, asked):
        # The record is worth something only because this request, which the second wheel makes needless, is in it.
        alone = machine.install_from(index, wheels["medperf"])
        assert alone.returncode != 0
        assert asked == ["/simple/medperf-contracts/"]
        asked.clear()
        done = machine.install_from(index, *wheels.values())
        assert done.returncode == 0, done.stderr
        assert asked == []
    return machine


@pytest.fixture(scope="module")
def stick(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make stick` gathers for this Python and machine."""
    return gathered(tmp_path_factory.mktemp("stick"))


def gathered(folder: Path, *settings: str) -> Path:
    done = subprocess.run(
        ["make", "--old-file=setup", "stick", f"STICK={folder / 'stick'}", *settings],
        cwd=project_copy(folder / "project"),
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "stick"


def project_copy(copy: Path) -> Path:
    """What of the project makes wheels, so that the project's own `dist` stays as it is."""
    unwanted = shutil.ignore_patterns("__pycache__", "additional_files")
    for part in ("contracts", "client", "deploy", "requirements", "tutorials"):
        shutil.copytree(PROJECT / part, copy / part, ignore=unwanted)
    shutil.copy(PROJECT / "Makefile", copy)
    (copy / ".venv").symlink_to(sys.prefix)
    return copy


def without_network(script: str, folder: Path, stick: Path) -> subprocess.CompletedProcess[str]:
    """Type the commands on a machine whose network is gone, with the stick in place of /media/stick."""
    folder.mkdir(exist_ok=True)
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8"}
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", "--net", "sh", "-ec", script.replace("/media/stick", str(stick))],
        cwd=folder,
        env=environment | {"PIP_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )


def commands_of_the_readme() -> str:
    """What the README has a person type on the machine without internet."""
    blocks = re.findall(r"```\n(.*?)```", (PROJECT / "README.md").read_text(), re.DOTALL)
    (block,) = [block for block in blocks if "/media/stick" in block]
    return block


@contextmanager
def recording_index() -> Iterator[tuple[str, list[str]]]:
    """A package index that has nothing and remembers what it was asked for; its URL and that list."""
    asked: list[str] = []

    class Index(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            """The list is the log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/simple", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("distribution", "package"), [("medperf", "medperf"), ("medperf_contracts",) * 2])
def test_a_wheel_holds_its_own_package_only(wheels: dict[str, Path], distribution: str, package: str) -> None:
    assert set(wheels) == {"medperf", "medperf_contracts"}
    with zipfile.ZipFile(wheels[distribution]) as wheel:
        tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {package}
    assert len(tops) == 2


def test_the_installed_command_works(installed: Machine) -> None:
    done = installed.run("medperf", "--help")
    assert done.returncode == 0, done.stderr
    assert all(noun in done.stdout for noun in ("dataset", "benchmark", "association", "result"))
    assert installed.run("python", "-m", "pip", "check").returncode == 0


def test_every_module_of_the_installed_client_imports_without_the_server(installed: Machine) -> None:
    program = """
import importlib, importlib.util, pkgutil, sys
import medperf, medperf_contracts
for package in (medperf, medperf_contracts):
    assert package.__file__.startswith(sys.prefix), package.__file__
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
        print(module.name)
there = [name for name in sys.argv[1:] if importlib.util.find_spec(name)]
assert not there, there
"""
    done = installed.run("python", "-c", program, *SERVER_ONLY)
    assert done.returncode == 0, done.stderr
    assert {"medperf.api", "medperf.cli.main", "medperf_contracts.access"} <= set(done.stdout.split())


def test_the_tutorials_data_maker_comes_with_the_client(installed: Machine) -> None:
    done = installed.run("medperf", "tutorial", "data")
    assert done.returncode == 0, done.stderr
    made = installed.folder / "medperf_tutorial" / "mock_chexpert"
    assert any((made / "images").iterdir())
    assert any((made / "labels").iterdir())


INSTALL_PACKAGES = """
import sys
from pathlib import Path
from medperf.engines.packages import install
from medperf.manifest import parse_manifest
sandbox = parse_manifest(Path(sys.argv[1]).read_bytes()).sandbox
sys.path.insert(0, str(install(Path("packages"), sandbox.packages, on_line=print)))
import numpy, PIL
print("numpy", numpy.__version__)
"""


def test_a_machine_without_internet_gets_client_and_packages_from_the_stick(stick: Path, tmp_path: Path) -> None:
    manifest = PROJECT / "tutorials" / "preparation" / "mlcube.yaml"
    (tmp_path / "packages.py").write_text(INSTALL_PACKAGES)
    installing, _, looking = commands_of_the_readme().strip().rpartition("\n")
    assert looking.strip() == "medperf doctor"
    done = without_network(f"{installing}\npython packages.py {manifest}\n{looking}\n", tmp_path, stick)
    assert "numpy 2." in done.stdout, done.stderr
    # No server and no login there: those alone are problems.
    problems = [line for line in done.stdout.splitlines() if line.startswith("problem")]
    assert [line.split(":")[0] for line in problems] == ["problem  server", "problem  login"], done.stdout
    assert done.returncode == 16, done.stderr


@pytest.mark.parametrize("altered", ["medperf-", "httpx-"])
def test_a_wheel_that_was_altered_on_the_stick_is_not_installed(stick: Path, tmp_path: Path, altered: str) -> None:
    copy = shutil.copytree(stick, tmp_path / "stick")
    (wheel,) = (copy / "wheels").glob(f"{altered}*")
    wheel.write_bytes(wheel.read_bytes() + b"!")
    installing, _, _ = commands_of_the_readme().partition("export")
    done = without_network(installing, tmp_path / "machine", copy)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert not (tmp_path / "machine" / "medperf" / "bin" / "medperf").exists()


def test_a_stick_for_another_python_and_machine_holds_their_wheels(tmp_path: Path) -> None:
    made = gathered(tmp_path, "PYTHON_VERSION=3.13", "MACHINE=aarch64")
    for folder, several in (("wheels", 10), ("packages", 3)):
        names = [path.name for path in (made / folder).iterdir()]
        assert len(names) >= several
        assert all(name.endswith("-any.whl") or ("cp313" in name and "aarch64" in name) for name in names), names


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_no_lock_names_a_distribution_of_the_project(lock: Path) -> None:
    ours = {own_name(folder) for folder in (PROJECT, PROJECT / "contracts", PROJECT / "client")}
    assert ours == {"medperf", "medperf-contracts", "medperf-server"}
    lines = [line for line in lock.read_text().splitlines() if re.match(r"[A-Za-z0-9]", line)]
    assert lines
    for line in lines:
        pinned = re.match(r"([A-Za-z0-9._-]+)(\[[^\]]*\])?==\S+", line)
        assert pinned, f"{lock.name} has a line that pins nothing: {line}"
        assert normalized(pinned[1]) not in ours


def own_name(folder: Path) -> str:
    return normalized(tomllib.loads((folder / "pyproject.toml").read_text())["project"]["name"])


def normalized(name: str) -> str:
    """A distribution's name as an index compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
