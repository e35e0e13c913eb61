"""Attacks on each line of a container's confinement, from inside real sandboxes, as root and as not root."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import medperf
from medperf.engines.outputs import remove_tree
from medperf.engines.process import SandboxProcess

DRIVER = Path(__file__).with_name("engine_driver.py")
# A user of the machine that is nobody's, and of this test process alone: its processes are counted.
PLAIN_USER = 1_900_000_000 + os.getpid()
MIB = 1024**2
AS_ROOT = os.getuid() == 0
CALLERS = ["root", "user"] if AS_ROOT else ["user"]
# How memory and processes are bounded: by a cgroup where root can make one, else by rlimits and the watcher.
BOUNDS = [("root", True), ("root", False), ("user", False)] if AS_ROOT else [("user", False)]


@dataclass
class Ran:
    said: dict[str, Any]
    folder: Path
    log: bytes

    def __getattr__(self, name: str) -> Any:
        return self.said.get(name)

    @property
    def answers(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.said["lines"] if "=" in line)


@dataclass
class Client:
    """Starts the driver as root or as a plain user, on a folder that this user can read."""

    caller: str
    folder: Path
    library: Path
    cgroups: bool = True
    run_id: str = ""

    def command(self, code: str, **case: Any) -> tuple[list[str], dict[str, str]]:
        self.run_id = f"attack{uuid.uuid4().hex[:12]}"
        (self.folder / "code" / "main.py").write_text(PREAMBLE + textwrap.dedent(code))
        described = {"folder": str(self.folder), "run_id": self.run_id, "cgroups": self.cgroups, **case}
        (self.folder / "case.json").write_text(json.dumps(described))
        python, environment = sys.executable, {**os.environ, "HOME": str(self.folder / "home"), "SECRET": "leak"}
        prefix: list[str] = []
        if self.caller == "user" and AS_ROOT:
            assert Path("/usr/bin/python3").exists(), "a plain user needs an interpreter outside of root's home"
            python, environment["PYTHONPATH"] = "/usr/bin/python3", str(self.library)
            prefix = ["setpriv", f"--reuid={PLAIN_USER}", f"--regid={PLAIN_USER}", "--clear-groups"]
            for path in (self.folder, *self.folder.rglob("*")):
                os.chown(path, PLAIN_USER, PLAIN_USER, follow_symlinks=False)
        return [*prefix, python, str(self.library / DRIVER.name), str(self.folder / "case.json")], environment

    def run(self, code: str, **case: Any) -> Ran:
        command, environment = self.command(code, **case)
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, cwd="/", check=False
        )
        assert done.returncode == 0, done.stderr
        log = self.folder / "log"
        return Ran(
            json.loads(done.stdout.splitlines()[-1]), self.folder, log.read_bytes() if log.exists() else b""
        )


PREAMBLE = """\
import ctypes, os, signal, socket, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def attempt(name, action):
    try:
        print(f"{name}=done {action()}")
    except Exception as error:
        print(f"{name}=refused {type(error).__name__} {getattr(error, 'errno', '')}")
def call(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), "call")
"""


@pytest.fixture(scope="session")
def library() -> Iterator[Path]:
    """The client and what it imports, where a plain user can read it."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        for package in (medperf, yaml):
            assert package.__file__
            source = Path(package.__file__).parent
            shutil.copytree(source, Path(folder, source.name), ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(DRIVER, folder)
        for path in Path(folder).rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        yield Path(folder)


def make_client(caller: str, library: Path, cgroups: bool = True) -> Iterator[Client]:
    # Not pytest's own folder: only root may pass it.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("in", "out", "code", "home"):
            (folder / part).mkdir()
        (folder / "in" / "scan.txt").write_text("a patient")
        (folder / "in" / "scan.txt").chmod(0o600)
        (folder / "home" / "id_rsa").write_text("a private key")
        yield Client(caller, folder, library, cgroups)


@pytest.fixture(params=CALLERS)
def client(request: pytest.FixtureRequest, library: Path) -> Iterator[Client]:
    yield from make_client(request.param, library)


@pytest.fixture
def one_client(library: Path) -> Iterator[Client]:
    yield from make_client(CALLERS[0], library)


@pytest.fixture(
    params=BOUNDS, ids=lambda bound: f"{bound[0]}-{'cgroup' if bound == ('root', True) else 'watcher'}"
)
def bounded_client(request: pytest.FixtureRequest, library: Path) -> Iterator[Client]:
    caller, cgroups = request.param
    yield from make_client(caller, library, cgroups)


def processes_with(marker: str) -> list[Path]:
    """Processes, zombies aside, whose command line holds `marker`."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                if marker.encode() in (process / "cmdline").read_bytes():
                    found.append(process)
    return found


def eventually(claim: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if claim():
            return True
        time.sleep(0.02)
    return claim()


def cgroups_of(run_id: str) -> list[Path]:
    return [folder for top in Path("/sys/fs/cgroup").glob("*") for folder in top.rglob(f"medperf-*-{run_id}")]


def test_a_container_reads_its_input_and_its_output_belongs_to_the_caller(client: Client) -> None:
    ran = client.run(
        """
        text = open("/mlcube_io0/scan.txt").read()
        os.mkdir("/mlcube_io1/deep")
        open("/mlcube_io1/deep/result.txt", "w").write(text + " " + " ".join(sys.argv[1:]))
        os.chmod("/mlcube_io1/deep/result.txt", 0o4000)
        os.chmod("/mlcube_io1/deep", 0)
        sys.exit(3)
        """,
        arguments=["infer", "--data_path=/mlcube_io0"],
    )
    assert (ran.cause, ran.exit_code) == ("exit_code", 3)
    result = ran.folder / "out" / "deep" / "result.txt"
    assert result.read_text() == "a patient infer --data_path=/mlcube_io0"
    for path in (result, result.parent):
        status = path.stat()
        assert (status.st_uid, status.st_gid) == (ran.uid, ran.uid)
        assert status.st_mode & (stat.S_IRUSR | stat.S_ISUID) == stat.S_IRUSR


def test_the_network_is_gone(client: Client) -> None:
    with socket.socket() as listener, socket.socket(socket.AF_UNIX) as abstract:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        name = f"medperf-{uuid.uuid4().hex}"
        abstract.bind(f"\0{name}")
        abstract.listen()
        port = listener.getsockname()[1]
        ran = client.run(
            f"""
            attempt("loopback", lambda: socket.create_connection(("127.0.0.1", {port}), 2))
            attempt("outside", lambda: socket.create_connection(("192.0.2.1", 80), 2))
            attempt("name", lambda: socket.getaddrinfo("localhost.localdomain", 80))
            attempt("abstract", lambda: socket.socket(socket.AF_UNIX).connect("\\0{name}"))
            print("interfaces=" + ",".join(name for _, name in socket.if_nameindex()))
            """
        )
    answers = ran.answers
    assert answers.pop("interfaces") == "lo"
    assert {key: value.split()[0] for key, value in answers.items()} == dict.fromkeys(
        ("loopback", "outside", "name", "abstract"), "refused"
    )


def test_an_input_cannot_be_written_or_remounted_writable(client: Client) -> None:
    ran = client.run(
        """
        def write():
            open("/mlcube_io0/scan.txt", "w").write("tampered")
        def remount(path):
            call(libc.mount(b"none", path, None, 32 | 4096, None))
        attempt("write", write)
        attempt("create", lambda: open("/mlcube_io0/new", "w"))
        attempt("chmod", lambda: os.chmod("/mlcube_io0/scan.txt", 0o777))
        attempt("remount", lambda: remount(b"/mlcube_io0"))
        attempt("remount code", lambda: remount(b"/mlcube_code"))
        attempt("unmount", lambda: call(libc.umount2(b"/mlcube_io0", 2)))
        attempt("write again", write)
        attempt("write code", lambda: open("/mlcube_code/main.py", "a"))
        attempt("write usr", lambda: open("/usr/planted", "w"))
        attempt("write beside", lambda: open("/planted", "w"))
        attempt("write dev", lambda: open("/dev/planted", "w"))
        """
    )
    assert len(ran.answers) == 11
    assert {value.split()[0] for value in ran.answers.values()} == {"refused"}
    assert (ran.folder / "in" / "scan.txt").read_text() == "a patient"


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


def test_the_environment_is_cleared(client: Client) -> None:
    ran = client.run("print('names=' + ','.join(sorted(os.environ))); print('home=' + os.environ['HOME'])")
    names = set(ran.answers["names"].split(","))
    python = {"PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONNOUSERSITE"}
    assert names - {"LC_CTYPE"} == {"PATH", "LANG", "HOME", "TMPDIR", "USER", "PWD"} | python
    assert ran.answers["home"] == "/tmp"


def test_it_has_no_capability_and_can_gain_none(client: Client) -> None:
    ran = client.run(
        """
        for line in open("/proc/self/status"):
            if line.startswith(("Cap", "NoNewPrivs", "Uid", "Gid")):
                print(line.strip().replace(":", "=", 1).replace("\\t", " "))
        attempt("set user", lambda: os.setuid(0))
        attempt("new user namespace", lambda: call(libc.unshare(0x10000000)))
        attempt("new mount namespace", lambda: call(libc.unshare(0x20000)))
        attempt("chroot", lambda: os.chroot("/tmp"))
        attempt("terminal", lambda: open("/dev/tty"))
        """
    )
    answers = {key: value.strip() for key, value in ran.answers.items()}
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert answers[name] == "0000000000000000"
    assert answers["NoNewPrivs"] == "1"
    assert set(answers["Uid"].split()) == set(answers["Gid"].split()) == {"65534"}
    tried = ("set user", "new user namespace", "new mount namespace", "chroot", "terminal")
    assert {answers[name].split()[0] for name in tried} == {"refused"}


def test_processes_outside_are_neither_seen_nor_reached(client: Client) -> None:
    victim = subprocess.Popen(["sleep", "60"])
    try:
        ran = client.run(
            f"""
            attempt("kill", lambda: os.kill({victim.pid}, signal.SIGKILL))
            attempt("trace", lambda: call(libc.ptrace(16, {victim.pid}, 0, 0)))
            attempt("kill all", lambda: os.kill(-1, 0))
            print("seen=" + ",".join(sorted(name for name in os.listdir("/proc") if name.isdigit())))
            """
        )
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()
    assert ran.answers["kill"].startswith("refused")
    assert ran.answers["trace"].startswith("refused")
    assert len(ran.answers["seen"].split(",")) <= 3


def test_folders_without_end_are_refused_and_removed(client: Client) -> None:
    ran = client.run(
        """
        os.chdir("/mlcube_io1")
        for _ in range(1500):
            os.mkdir("deep")
            os.chdir("deep")
        """
    )
    assert (ran.error, "more than 64 deep" in ran.message) == ("ContainerFailed", True)
    remove_tree(client.folder / "out")
    assert not (client.folder / "out").exists()


def test_a_launcher_that_was_given_no_plan_ends_at_once_and_leaves_nothing_open() -> None:
    before = sorted(Path("/proc/self/fd").iterdir())
    process = SandboxProcess()
    began = time.monotonic()
    process.end()
    assert time.monotonic() - began < 5
    assert sorted(Path("/proc/self/fd").iterdir()) == before


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


@pytest.mark.skipif(not AS_ROOT, reason="only root can give the container another user")
def test_a_run_that_root_starts_is_not_roots_on_the_host(library: Path) -> None:
    for client in make_client("root", library):
        marker = f"marker{uuid.uuid4().hex}"
        command, environment = client.command(
            "print('started'); time.sleep(30)", command=["python", "main.py", marker], limits={"wall_seconds": 20}
        )
        driver = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, cwd="/")
        try:
            assert eventually((client.folder / "started").exists)
            inside = [
                process for process in processes_with(marker) if b"bwrap" not in (process / "cmdline").read_bytes()
            ]
            assert len(inside) == 1
            uids = re.search(r"^Uid:\s+(.*)$", (inside[0] / "status").read_text(), re.MULTILINE)
            assert uids
            assert all(int(uid) >= 2_000_000_000 for uid in uids[1].split())
        finally:
            driver.kill()
            driver.wait()


def test_a_fork_bomb_is_bounded(bounded_client: Client) -> None:
    ran = bounded_client.run(
        """
        for count in range(4000):
            try:
                child = os.fork()
            except OSError:
                print(f"forks={count}")
                sys.exit(9)
            if child == 0:
                time.sleep(60)
        print("forks=all")
        """,
        limits={"processes": 60, "wall_seconds": 20},
    )
    assert int(ran.answers["forks"]) <= 60
    assert ran.exit_code == 9


@pytest.mark.skipif(not AS_ROOT, reason="only root can make the cgroup that is looked at here")
def test_a_cgroup_names_the_process_limit_as_the_cause(library: Path) -> None:
    for client in make_client("root", library):
        ran = client.run(
            "for _ in range(200):\n    if os.fork() == 0:\n        time.sleep(60)",
            limits={"processes": 50, "wall_seconds": 20},
        )
        assert ran.cause == "process_limit"


def test_memory_is_bounded_over_all_processes_together(bounded_client: Client) -> None:
    # Each of the four stays below the limit that a single process would have.
    ran = bounded_client.run(
        """
        for _ in range(3):
            if os.fork() == 0:
                break
        held = []
        for _ in range(9):
            held.append(bytearray(b"x") * (10 * 1024 * 1024))
            time.sleep(0.02)
        time.sleep(15)
        """,
        limits={"memory_bytes": 150 * MIB, "wall_seconds": 10},
    )
    assert ran.cause == "out_of_memory"


def test_one_process_cannot_take_more_memory_than_the_limit(bounded_client: Client) -> None:
    ran = bounded_client.run(
        "held = [bytearray(b'x') * (10 * 1024 * 1024) for _ in range(60)]; print('got=all')",
        limits={"memory_bytes": 150 * MIB, "wall_seconds": 20},
    )
    assert "got" not in ran.answers
    if bounded_client.cgroups:
        assert ran.cause == "out_of_memory"
    else:
        # At once, before any watcher could look.
        assert b"MemoryError" in ran.log


def test_filling_the_output_ends_the_run(client: Client) -> None:
    ran = client.run(
        """
        for place in range(1000):
            with open(f"/mlcube_io1/{place}", "wb") as file:
                file.write(bytes(1024 * 1024))
            time.sleep(0.01)
        """,
        limits={"output_bytes": 10 * MIB, "tmp_bytes": MIB, "wall_seconds": 30},
    )
    assert ran.cause == "output_limit"
    assert len(list((ran.folder / "out").iterdir())) < 300


def test_an_output_that_is_too_large_at_the_end_fails_the_run(one_client: Client) -> None:
    ran = one_client.run(
        "for place in range(3): open(f'/mlcube_io1/{place}', 'wb').write(bytes(4 * 1024 * 1024))",
        limits={"output_bytes": 10 * MIB},
    )
    assert ran.cause == "output_limit"


def test_one_file_cannot_outgrow_the_output_limit(one_client: Client) -> None:
    ran = one_client.run(
        """
        def grow():
            with open("/mlcube_io1/huge", "wb") as file:
                file.truncate(1024**4)
        attempt("sparse", grow)
        """,
        limits={"output_bytes": 10 * MIB, "tmp_bytes": MIB},
    )
    assert ran.answers["sparse"].startswith("refused")


def test_folders_in_memory_are_bounded(client: Client) -> None:
    ran = client.run(
        """
        def fill(folder):
            with open(f"{folder}/filler", "wb") as file:
                for _ in range(64):
                    file.write(bytes(1024 * 1024))
                    file.flush()
        attempt("tmp", lambda: fill("/tmp"))
        attempt("shm", lambda: fill("/dev/shm"))
        """,
        limits={"tmp_bytes": 4 * MIB, "output_bytes": 1024 * MIB},
    )
    assert ran.answers == {"tmp": "refused OSError 28", "shm": "refused OSError 28"}


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


@pytest.mark.parametrize(
    ("making", "kind"),
    [
        ("os.symlink('/etc/passwd', path)", "link"),
        ("os.symlink('missing', path)", "link"),
        ("os.mkfifo(path)", "pipe"),
        ("socket.socket(socket.AF_UNIX).bind(path)", "socket"),
        ("open('/mlcube_io1/deep/a', 'w'); os.link('/mlcube_io1/deep/a', path)", "hard link"),
    ],
)
def test_outputs_that_are_not_files_are_refused_by_name(one_client: Client, making: str, kind: str) -> None:
    ran = one_client.run(f"path = '/mlcube_io1/deep/result.yaml'\nos.mkdir('/mlcube_io1/deep')\n{making}")
    assert ran.error == "ContainerFailed"
    assert f"wrote a {kind}: deep/" in ran.message


def test_endless_output_is_cut_and_ends_with_the_time(client: Client) -> None:
    ran = client.run(
        """
        print("the beginning")
        while True:
            os.write(1, b"x" * 70_000 + b"y\\n")
        """,
        limits={"wall_seconds": 1.5, "log_bytes": MIB},
    )
    assert ran.cause == "time_limit"
    assert ran.log.startswith(b"the beginning\n")
    assert MIB < len(ran.log) < 2 * MIB
    assert re.search(rb"\[medperf: the log is full; [\d,]+ bytes were left out here\]", ran.log)
    assert max(len(line) for line in ran.lines) <= 500


def test_lines_can_do_a_terminal_no_harm_and_the_log_keeps_them_raw(one_client: Client) -> None:
    ran = one_client.run(
        r"""
        sys.stdout.buffer.write(b"\x1b[2J\x1b]0;owned\x07red \x1b[31mtext\x1b[0m\n")
        sys.stdout.buffer.write(b"10%\r50%\r100%\r\n")
        sys.stdout.buffer.write(b"bell\x07 null\x00 c1\xc2\x9b31m bad\xff \xe2\x80\xaeback\n")
        sys.stdout.buffer.write(b"no end of line")
        """
    )
    assert ran.lines == ["red text", "100%", "bell null c1 bad\ufffd back", "no end of line"]
    assert b"\x1b[2J\x1b]0;owned\x07" in ran.log


def test_a_container_that_ignores_signals_is_ended_in_time(client: Client) -> None:
    marker = f"marker{uuid.uuid4().hex}"
    ran = client.run(
        """
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.closerange(0, 3)
        held = bytearray(b"x") * 20_000_000
        for _ in range(100):
            if os.fork() == 0:
                held[::4096] = b"y" * len(held[::4096])  # its own pages: its end takes the kernel a while
                break
        time.sleep(60)
        """,
        command=["python", "main.py", marker],
        limits={"wall_seconds": 1},
    )
    assert (ran.cause, ran.exit_code) == ("time_limit", None)
    assert 1 <= ran.seconds < 5
    assert not processes_with(marker)
    assert not cgroups_of(client.run_id)


def test_a_process_that_outlives_its_command_is_ended_with_it(client: Client) -> None:
    marker = f"marker{uuid.uuid4().hex}"
    ran = client.run(
        """
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.closerange(0, 3)
                while True:
                    open("/mlcube_io1/beat", "w").write(str(time.time()))
            os._exit(0)
        time.sleep(0.3)
        """,
        command=["python", "main.py", marker],
    )
    assert (ran.cause, ran.exit_code) == ("exit_code", 0)
    assert (ran.folder / "out" / "beat").exists()
    assert not processes_with(marker)


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


def test_ctrl_c_stops_the_run_and_leaves_nothing(client: Client) -> None:
    marker = f"marker{uuid.uuid4().hex}"
    command, environment = client.command(
        "print('started'); time.sleep(60)", command=["python", "main.py", marker], limits={"wall_seconds": 50}
    )
    driver = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd="/")
    assert eventually((client.folder / "started").exists)
    driver.send_signal(signal.SIGINT)
    said = json.loads(driver.communicate(timeout=20)[0].splitlines()[-1])
    assert said["interrupted"]
    assert said["forgotten"]
    assert not processes_with(marker)
    assert not cgroups_of(client.run_id)


def test_a_ctrl_c_that_the_client_does_not_act_on_does_not_end_the_run(one_client: Client) -> None:
    command, environment = one_client.command(
        "print('started'); time.sleep(1); sys.exit(5)", ignores_interrupts=True
    )
    driver = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, text=True, cwd="/", start_new_session=True
    )
    assert eventually((one_client.folder / "started").exists)
    # As a terminal does it: to the whole group.
    os.killpg(driver.pid, signal.SIGINT)
    said = json.loads(driver.communicate(timeout=20)[0].splitlines()[-1])
    assert (said["cause"], said["exit_code"]) == ("exit_code", 5)


def test_an_error_in_the_callers_own_code_stops_the_run(one_client: Client) -> None:
    marker = f"marker{uuid.uuid4().hex}"
    ran = one_client.run("print('interrupt me'); time.sleep(60)", command=["python", "main.py", marker])
    assert ran.interrupted
    assert not processes_with(marker)


def test_a_command_that_is_not_there_is_the_containers_failure(one_client: Client) -> None:
    ran = one_client.run("pass", command=["/no/such/program"])
    assert (ran.cause, ran.exit_code) == ("exit_code", 1)
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
def test_where_owners_cannot_be_mapped_root_still_gets_its_output(library: Path) -> None:
    for client in make_client("root", library):
        # ramfs has no idmapped mounts; it is mounted for this client alone.
        command, environment = client.command("open('/mlcube_io1/result', 'w').write('made')")
        out = client.folder / "out"
        script = f'mount -t ramfs none "{out}" && "$@" && stat -c "%u %a" "{out}/result"'
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh", *command],
            env=environment, capture_output=True, text=True, timeout=60, check=True, cwd="/",
        )  # fmt: skip
        said, listed = done.stdout.splitlines()
        assert json.loads(said)["exit_code"] == 0, said
        assert listed == "0 644"
