"""`medperf doctor`: each thing that can be wrong with a site is found by itself, and said with its remedy."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from medperf.credentials import Credentials, Keyring
from medperf.doctor import Check, Finding, Level, examine
from medperf.doctor.engines import ENGINES, engine_checks
from medperf.doctor.machine import client_version
from medperf.errors import EngineUnavailable, ProblemsFound, UsageError
from medperf.home import Home
from peers import answers
from peers.scripted_peer import Asked, Reply, ScriptedPeer

MEDPERF = Path(sys.executable).with_name("medperf")
NAMES = (
    *("python", *(f"engine {name}" for name in ENGINES), "containers"),
    *("memory", "disk of the local folder", "disk of TMPDIR"),
    *("local folder", "proxy", "certificates", "server", "clock", "login"),
)


@dataclass
class Machine:
    """A site in order: its server, its login, its settings; a test puts one thing wrong."""

    peer: ScriptedPeer
    home: Home
    settings: dict[str, str]
    server: dict[str, Any] = field(default_factory=dict)
    me: Reply = field(default_factory=lambda: Reply.of(answers.user(), Medperf_Version="user/5@1"))
    before: tuple[str, ...] = ()

    def answer(self, asked: Asked) -> Reply:
        if asked.path == "/api/v1/server":
            now = {"time": datetime.now(UTC).isoformat(), "version": client_version()}
            return Reply.of({**answers.SERVER, **now, **self.server})
        if asked.path == "/api/v1/users/me":
            return self.me
        return Reply.problem(401, "login_ended")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        unset = ("MEDPERF", "HTTP", "HTTPS", "ALL_", "NO_PROXY", "http", "all_", "no_proxy")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(unset)}
        return subprocess.run(
            [*self.before, MEDPERF, "doctor", *arguments],
            env={**kept, **self.settings},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def findings(self, *, problems: tuple[str, ...] = ()) -> dict[str, dict[str, str]]:
        """What each check found; only these are problems, and the exit code says so."""
        done = self.run("--json")
        said = json.loads(done.stdout)
        assert tuple(check["name"] for check in said["checks"]) == NAMES, done.stderr
        found = {check["name"]: check for check in said["checks"]}
        assert {name for name, check in found.items() if check["level"] == "problem"} == set(problems), found
        assert said["has_problems"] == bool(problems)
        assert done.returncode == (ProblemsFound.exit_code if problems else 0), done.stderr
        # Whatever is not in order says what to do.
        assert all(check["advice"] for check in found.values() if check["level"] != "ok"), found
        return found


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setenv("MEDPERF_HOME", str(tmp_path / "home"))
    with ScriptedPeer(lambda _: Reply(500)) as peer:
        home = Home.at(peer.url)
        Keyring(home.credentials).keep(Credentials(5, "ada", "access-1", f"refresh-{'x' * 20}", time.time() + 900))
        made = Machine(peer, home, {"MEDPERF_SERVER": peer.url, "MEDPERF_HOME": str(tmp_path / "home")})
        peer.script = made.answer
        yield made


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_mode, path.lstat().st_mtime_ns) for path in folder.rglob("*")}


def test_a_site_in_order_has_no_problem_and_nothing_is_changed_or_sent_but_two_questions(machine: Machine) -> None:
    before = files_of(machine.home.root)
    found = machine.findings()
    assert files_of(machine.home.root).keys() - before.keys() <= {
        str(machine.home.root / name) for name in ("seen.json", "seen.lock")
    }
    assert [f"{asked.method} {asked.path}" for asked in machine.peer.asked] == [
        "GET /api/v1/server",
        "GET /api/v1/users/me",
    ]
    assert all(asked.body == b"" for asked in machine.peer.asked)
    assert f"medperf {client_version()}" in found["python"]["found"]
    assert "a small container ran" in found["engine sandbox"]["found"]
    assert "cgroup" in found["engine sandbox"]["found"]
    assert "ada" in found["login"]["found"]
    done = machine.run()
    lines = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert [line.split()[0] for line in lines] == [check["level"] for check in found.values()]
    assert (done.returncode, done.stderr) == (0, "")


def test_a_machine_that_was_never_used_is_left_as_it_was(machine: Machine, tmp_path: Path) -> None:
    machine.settings["MEDPERF_HOME"] = str(tmp_path / "never")
    found = machine.findings(problems=("login",))
    assert "medperf login" in found["login"]["advice"]
    assert "not there yet" in found["local folder"]["found"]
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(
    ("off", "level", "said"),
    [(30, "ok", "within"), (-30, "ok", "within"), (90, "warning", "behind"), (-90, "warning", "ahead of")],
)
def test_a_clock_that_is_off_by_a_minute_is_a_warning(machine: Machine, off: int, level: str, said: str) -> None:
    machine.server["time"] = (datetime.now(UTC) + timedelta(seconds=off)).isoformat()
    found = machine.findings()["clock"]
    assert (found["level"], said in found["found"]) == (level, True)


def test_another_version_and_another_store_are_told(machine: Machine) -> None:
    machine.server["version"] = "9.9.9"
    found = machine.findings()["server"]
    assert (found["level"], "9.9.9" in found["found"]) == ("warning", True)
    machine.server.clear()
    (machine.home.root / "store").write_text("another\n")
    assert "another store" in machine.findings(problems=("server",))["server"]["found"]


def test_a_server_that_is_not_there_is_one_problem_and_the_rest_is_looked_at(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    gone = f"http://127.0.0.1:{port}"
    machine.home.root.rename(Home.at(gone).root)
    machine.settings["MEDPERF_SERVER"] = gone
    found = machine.findings(problems=("server",))
    assert "is not answering" in found["server"]["found"]
    assert (found["clock"]["level"], found["login"]["level"]) == ("warning", "warning")


def test_a_server_that_never_answers_does_not_hold_it_up(machine: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        machine.settings["MEDPERF_SERVER"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        machine.findings(problems=("server", "login"))
        assert time.monotonic() - began < 30


def test_something_else_at_the_address_is_told(machine: Machine) -> None:
    machine.peer.script = lambda _: Reply.of({"hello": "world"})
    found = machine.findings(problems=("server",))
    assert "not as a MedPerf server does" in found["server"]["found"]
    machine.peer.script = lambda _: Reply(404, b"<html>")
    assert "404" in machine.findings(problems=("server",))["server"]["found"]


def test_a_login_that_has_ended_is_a_problem(machine: Machine) -> None:
    machine.me = Reply.problem(401, "token_expired")
    found = machine.findings(problems=("login",))["login"]
    assert ("has ended" in found["found"], found["advice"]) == (True, "Run `medperf login`.")


def test_a_machine_without_an_engine_says_so_and_how_to_get_one(machine: Machine, tmp_path: Path) -> None:
    machine.settings |= {"PATH": str(tmp_path), "DOCKER_HOST": f"unix://{tmp_path}/nothing.sock"}
    found = machine.findings(problems=("containers",))
    assert {found[f"engine {name}"]["level"] for name in ENGINES} == {"warning"}
    assert "apt-get install bubblewrap" in found["engine sandbox"]["advice"]


def test_a_folder_that_others_can_read_is_a_problem(machine: Machine) -> None:
    for folder in (machine.home.root, *machine.home.root.parents[:6]):
        if folder.stat().st_uid == os.getuid() and "pytest" in str(folder):
            folder.chmod(0o755)
    found = machine.findings(problems=("local folder",))["local folder"]
    assert f"chmod -R go-rwx {machine.home.root}" in found["advice"]
    # Open itself, and yet nobody comes as far as to it.
    machine.home.root.parent.chmod(0o700)
    machine.findings()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to somebody else")
def test_a_folder_of_somebody_else_is_a_problem(machine: Machine) -> None:
    os.chown(machine.home.root, 65534, 65534)
    assert "belongs to user 65534" in machine.findings(problems=("local folder",))["local folder"]["found"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount the small disk that this needs")
@pytest.mark.parametrize(
    ("name", "place", "size", "level"),
    [
        ("disk of TMPDIR", "tmp", "10m", "problem"),
        ("disk of TMPDIR", "tmp", "500m", "warning"),
        ("disk of the local folder", "home", "500m", "problem"),
        ("disk of the local folder", "home", "2g", "warning"),
    ],
)
def test_a_disk_that_is_nearly_full_is_told(
    machine: Machine, tmp_path: Path, name: str, place: str, size: str, level: str
) -> None:
    folder = tmp_path / place
    folder.mkdir(exist_ok=True)
    if place == "tmp":
        machine.settings["TMPDIR"] = str(folder)
    mount = f'mount -t tmpfs -o size={size},mode=700 none "{folder}" && exec "$@"'
    machine.before = ("unshare", "--mount", "--propagation", "private", "sh", "-ec", mount, "sh")
    problems = [name] if level == "problem" else []
    # The small disk hides the login that was there.
    problems += ["login"] if place == "home" else []
    found = machine.findings(problems=tuple(problems))[name]
    assert found["level"] == level
    assert "Make space" in found["advice"]


def test_proxies_are_shown_without_their_credentials(machine: Machine) -> None:
    machine.settings |= {"HTTPS_PROXY": "http://eva:sesame@proxy.invalid:3128", "NO_PROXY": "10.0.0.0/8"}
    done = machine.run()
    assert "proxy.invalid:3128 (HTTPS_PROXY) with a name and password; NO_PROXY: 10.0.0.0/8" in done.stdout
    assert not any(part in done.stdout + done.stderr for part in ("eva", "sesame"))
    machine.settings["HTTPS_PROXY"] = "socks5://eva:sesame@proxy.invalid:1080"
    found = machine.findings(problems=("proxy",))["proxy"]
    assert "SOCKS is not supported" in found["advice"]


def test_a_ca_that_cannot_be_read_is_found_with_the_rest(machine: Machine, tmp_path: Path) -> None:
    machine.settings["MEDPERF_CA"] = str(tmp_path / "gone.pem")
    found = machine.findings(problems=("certificates", "server"))
    assert "gone.pem (MEDPERF_CA) cannot be read" in found["certificates"]["found"]
    del machine.settings["MEDPERF_CA"]
    machine.settings["SSL_CERT_FILE"] = str(tmp_path / "gone.pem")
    assert machine.findings()["certificates"]["level"] == "warning"


def test_an_address_that_is_none_is_a_usage_error(machine: Machine) -> None:
    machine.settings["MEDPERF_SERVER"] = "nonsense"
    assert machine.run().returncode == UsageError.exit_code


# The list of checks itself


def fails() -> Finding:
    raise ZeroDivisionError("a bug")


def test_a_check_that_breaks_or_hangs_does_not_keep_the_others_from_being_made() -> None:
    fine = Finding(Level.OK, "fine")
    checks = [
        Check("breaks", fails),
        Check("hangs", lambda: time.sleep(5) or fine, seconds=0.2),  # type: ignore[func-returns-value]
        Check("last", lambda: fine),
    ]
    began = time.monotonic()
    broken, hanging, last = [one.finding for one in examine(checks)]
    assert time.monotonic() - began < 3
    assert (broken.level, "ZeroDivisionError: a bug" in broken.found) == (Level.WARNING, True)
    assert (hanging.level, hanging.found) == (Level.PROBLEM, "no answer within 0.2 s")
    assert last == fine


def unavailable() -> Finding:
    raise EngineUnavailable("It is not there.", hint="Install it.")


def works() -> Finding:
    return Finding(Level.OK, "it ran")


@pytest.mark.parametrize(
    ("engines", "levels"),
    [
        ({"one": works, "two": unavailable}, ["ok", "warning", "ok"]),
        ({"one": unavailable, "two": works}, ["warning", "ok", "ok"]),
        ({"one": unavailable, "two": unavailable}, ["warning", "warning", "problem"]),
    ],
)
def test_one_engine_that_works_is_enough(engines: dict[str, Callable[[], Finding]], levels: list[str]) -> None:
    found = list(examine(engine_checks(engines)))
    assert [one.finding.level for one in found] == levels
    assert [one.name for one in found] == ["engine one", "engine two", "containers"]


def test_the_engine_that_somebody_asked_for_must_be_the_one_that_works() -> None:
    engines = {"docker": unavailable, "sandbox": works}
    found = list(examine(engine_checks(engines, platform=lambda: ("docker", "MEDPERF_PLATFORM asks for"))))[-1]
    assert found.finding.level is Level.PROBLEM
    assert "MEDPERF_PLATFORM asks for docker" in found.finding.found
    assert "--platform auto" in found.finding.advice


def test_a_platform_that_there_is_not_is_a_problem(machine: Machine) -> None:
    machine.settings["MEDPERF_PLATFORM"] = "banana"
    found = machine.findings(problems=("containers",))["containers"]
    assert "MEDPERF_PLATFORM is 'banana'" in found["found"]


def test_an_engine_that_is_looked_at_leaves_nothing_where_doctor_was_called(
    podman_base_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "a small container ran under Podman" in ENGINES["podman"]().found
    assert list(tmp_path.iterdir()) == []


def test_the_engines_that_are_looked_at_are_those_that_there_are() -> None:
    assert set(ENGINES) == {"docker", "podman", "apptainer", "sandbox"}
    assert shutil.which("bwrap")
