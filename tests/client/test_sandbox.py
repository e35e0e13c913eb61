"""What only the sandbox has to hold or to say: its view of the machine, its user namespaces, its remedies."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from containers.attack import AS_ROOT, CALLERS, MIB, Client, cgroups_of, eventually, make_client, processes_with
from medperf.engines.base import Cause, TaskSpec
from medperf.engines.process import LocalProcess
from medperf.engines.sandbox import SandboxEngine
from medperf.manifest.model import Sandbox

_STOPS = 120


@pytest.fixture(params=CALLERS)
def client(request: pytest.FixtureRequest, library: Path) -> Iterator[Client]:
    """The sandbox alone."""
    with make_client("sandbox", request.param, library) as made:
        yield made


@pytest.fixture
def one_client(library: Path) -> Iterator[Client]:
    with make_client("sandbox", CALLERS[0], library) as made:
        yield made


@pytest.fixture
def root_client(library: Path) -> Iterator[Client]:
    with make_client("sandbox", "root", library) as made:
        yield made


@pytest.mark.guarantee("host")
def test_of_the_host_only_what_is_named_is_visible(client: Client) -> None:
    with tempfile.TemporaryDirectory() as other_run:
        Path(other_run).chmod(0o755)
        Path(other_run, "result").write_text("another's")
        ran = client.run(
            f"""
            print("top=" + ",".join(sorted(os.listdir("/"))))
            print("etc=" + ",".join(sorted(os.listdir("/etc"))))
            print("tmp=" + ",".join(os.listdir("/tmp")))
            for path in ({str(ran_home(client))!r}, {other_run!r}, "/etc/passwd", "/var", "/sys", "/run", "/home"):
                print(f"{{path}}={{os.path.exists(path)}}")
            above = os.path.dirname(sys.base_prefix)
            if not above.startswith("/usr") and above != "/":
                print("beside the interpreter=" + str(os.listdir(above) != [os.path.basename(sys.base_prefix)]))
            print("host name=" + os.uname().nodename)
            """
        )
    answers = ran.answers
    top = set(answers.pop("top").split(","))
    interpreter_tops = {Path(sys.base_prefix).parts[1]}
    allowed = {"bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "sbin", "tmp", "usr"}
    assert top - allowed - interpreter_tops == {"mlcube_code", "mlcube_io0", "mlcube_io1"}
    assert set(answers.pop("etc").split(",")) <= {"ld.so.cache"}
    assert answers.pop("tmp") == ""
    assert answers.pop("host name") == "container"
    assert set(answers.values()) == {"False"}


def ran_home(client: Client) -> Path:
    return client.folder / "home"


@pytest.mark.guarantee("environment")
def test_the_environment_is_cleared(client: Client) -> None:
    ran = client.run("print('names=' + ','.join(sorted(os.environ))); print('home=' + os.environ['HOME'])")
    names = set(ran.answers["names"].split(","))
    python = {"PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONNOUSERSITE"}
    assert names - {"LC_CTYPE"} == {"PATH", "LANG", "HOME", "TMPDIR", "USER", "PWD"} | python
    assert ran.answers["home"] == "/tmp"


def test_a_launcher_that_was_given_no_plan_ends_at_once_and_leaves_nothing_open() -> None:
    before = sorted(Path("/proc/self/fd").iterdir())
    process = LocalProcess()
    began = time.monotonic()
    process.end()
    assert time.monotonic() - began < 5
    assert sorted(Path("/proc/self/fd").iterdir()) == before


def is_bubblewrap_made() -> bool:
    """Whether a launcher of this process's has become bubblewrap."""
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
    return any(Path(f"/proc/{child}/comm").read_text() == "bwrap\n" for child in children)


def test_a_run_that_is_stopped_while_it_is_set_up_ends_at_once_and_leaves_no_process(tmp_path: Path) -> None:
    marker, engine = uuid.uuid4().hex, SandboxEngine(tmp_path)
    for number in range(_STOPS):
        sandbox = Sandbox(("python", "-c", "import time; time.sleep(60)", marker), ())
        spec = TaskSpec(f"stopped{marker}{number}", "infer", (), (), None, sandbox, tmp_path / f"log{number}")
        engine.start(spec)
        # What goes wrong does so in a millisecond or two after the launcher has become bubblewrap.
        while not is_bubblewrap_made():
            pass
        time.sleep(number % 40 * 0.0001)
        began = time.monotonic()
        engine.stop(spec.run_id)
        assert engine.wait(spec.run_id, on_line=lambda _line: None).cause is Cause.CANCELLED
        assert time.monotonic() - began < 5
    assert processes_with(marker) == []


def test_what_its_environment_makes_the_loader_say_does_not_keep_it_from_running(client: Client) -> None:
    ran = client.run("print('here')", environment={"LD_PRELOAD": "/no/such/library.so", "LC_ALL": "xx_YY.none"})
    assert (ran.exit_code, ran.lines[-1]) == (0, "here"), ran.log


def test_where_the_kernel_counts_a_users_processes_those_of_its_neighbours_have_room(library: Path) -> None:
    code = "import resource; print('most=%d' % resource.getrlimit(resource.RLIMIT_NPROC)[0])"
    with make_client("sandbox", "user", library, cgroups=False) as client:
        alone, beside = (
            int(client.run(code, limits={"processes": 500}, neighbours=neighbours).answers["most"])
            for neighbours in (0, 3)
        )
    assert 3 * 500 <= beside - alone <= 3 * 500 + 200


@pytest.mark.guarantee("environment")
def test_its_environment_reaches_nothing_outside(client: Client) -> None:
    # The loader obeys these before a program's first line; bubblewrap's own loader must not see them.
    told = Path(tempfile.gettempdir()) / f"loader{uuid.uuid4().hex}"
    loader = {"LD_DEBUG": "files", "LD_DEBUG_OUTPUT": str(told)}
    ran = client.run(
        """
        print("own=" + os.environ["MODE"])
        print("inside=" + str(any(name.startswith("loader") for name in os.listdir("/tmp"))))
        """,
        environment={"MODE": "fast", **loader},
    )
    assert (ran.answers["own"], ran.answers["inside"]) == ("fast", "True")
    outside = list(told.parent.glob(f"{told.name}*"))
    for file in outside:
        file.unlink()
    assert not outside


@pytest.mark.skipif(not AS_ROOT, reason="only root can make the cgroup that is looked at here")
def test_a_cgroup_names_the_process_limit_as_the_cause(root_client: Client) -> None:
    ran = root_client.run(
        "for _ in range(200):\n    if os.fork() == 0:\n        time.sleep(60)",
        limits={"processes": 50, "wall_seconds": 20},
    )
    assert ran.cause == "process_limit"


def test_an_older_bubblewrap_confines_too(one_client: Client) -> None:
    ran = one_client.run(
        """
        attempt("tmp", lambda: open("/tmp/small", "wb").write(b"x"))
        attempt("shm", lambda: open("/dev/shm/filler", "wb"))
        attempt("network", lambda: socket.create_connection(("192.0.2.1", 80), 2))
        with open("/tmp/filler", "wb") as file:
            for _ in range(200):
                file.write(bytes(1024 * 1024))
                file.flush()
                time.sleep(0.01)
        """,
        bubblewrap_version=[0, 6, 1],
        limits={"output_bytes": 10 * MIB, "tmp_bytes": 300 * MIB, "wall_seconds": 20},
    )
    assert ran.answers["tmp"] == "done 1"
    assert ran.answers["shm"].startswith("refused")
    assert ran.answers["network"].startswith("refused")
    assert ran.cause == "output_limit"
    assert not list(ran.folder.glob("*.tmp"))


@pytest.mark.guarantee("killed")
def test_it_dies_with_a_client_that_is_killed(client: Client) -> None:
    marker = f"marker{uuid.uuid4().hex}"
    command, environment = client.command(
        "print('started'); time.sleep(60)", command=["python", "main.py", marker], limits={"wall_seconds": 50}
    )
    driver = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, cwd="/")
    try:
        assert eventually((client.folder / "started").exists)
        assert processes_with(marker)
    finally:
        driver.kill()
        driver.wait()
    assert eventually(lambda: not processes_with(marker), seconds=5)
    killed = client.run_id
    # What it could not remove itself the next run removes.
    client.run("pass")
    assert not cgroups_of(killed)


def test_a_command_that_is_not_there_is_the_containers_failure(one_client: Client) -> None:
    ran = one_client.run("pass", command=["/no/such/program"])
    assert (ran.cause, ran.exit_code) == ("exit_code", 127)
    assert b"/no/such/program" in ran.log


def test_a_machine_where_it_works_is_found_to_work(client: Client) -> None:
    assert client.run("", probe=True).said["probed"]


def test_a_machine_without_bubblewrap_is_told_to_install_it(one_client: Client) -> None:
    command, environment = one_client.command("", probe=True)
    done = subprocess.run(
        command, env={**environment, "PATH": "/nowhere"}, capture_output=True, text=True, timeout=60, check=True
    )
    said = json.loads(done.stdout)
    assert said["error"] == "EngineUnavailable"
    assert "apt-get install bubblewrap" in said["hint"]


def in_user_namespace(command: list[str], *, setting: str = "true") -> list[str]:
    """`command` as the root of a user namespace that has this one id, after `setting`."""
    script = f'{setting} && exec "$@"'
    return ["unshare", "--user", "--map-root-user", "sh", "-ec", script, "sh", *command]


def test_where_namespaces_are_forbidden_the_setting_is_named(one_client: Client) -> None:
    command, environment = one_client.command("", probe=True)
    forbidden = in_user_namespace(command, setting="echo 0 > /proc/sys/user/max_user_namespaces")
    done = subprocess.run(forbidden, env=environment, capture_output=True, text=True, timeout=60, check=True)
    said = json.loads(done.stdout)
    assert said["error"] == "EngineUnavailable"
    assert "bwrap:" in said["message"]
    assert "user.max_user_namespaces" in said["hint"]


def test_where_there_is_no_other_user_to_give_the_watcher_bounds_processes(one_client: Client) -> None:
    # Here the kernel takes the container's processes for root's, which no rlimit binds.
    one_client.cgroups = False
    command, environment = one_client.command(
        """
        for count in range(2000):
            time.sleep(0.002)
            if os.fork() == 0:
                time.sleep(60)
        print("forks=all")
        time.sleep(5)
        """,
        limits={"processes": 60, "wall_seconds": 20},
    )
    done = subprocess.run(
        in_user_namespace(command), env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    said = json.loads(done.stdout)
    assert "forks=all" not in said["lines"]
    assert (said["cause"] == "process_limit") if AS_ROOT else (said["exit_code"] != 0)


@pytest.mark.skipif(not AS_ROOT, reason="only root can mount the file system that this needs")
def test_where_owners_cannot_be_mapped_root_still_gets_its_output(root_client: Client) -> None:
    # ramfs has no idmapped mounts; it is mounted for this root_client alone.
    command, environment = root_client.command("open('/mlcube_io1/result', 'w').write('made')")
    out = root_client.folder / "out"
    script = f'mount -t ramfs none "{out}" && "$@" && stat -c "%u %a" "{out}/result"'
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh", *command],
        env=environment, capture_output=True, text=True, timeout=60, check=True, cwd="/",
    )  # fmt: skip
    said, listed = done.stdout.splitlines()
    assert json.loads(said)["exit_code"] == 0, said
    assert listed == "0 644"
