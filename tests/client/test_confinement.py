"""Attacks on each line of a container's confinement, from inside real containers of every engine.

As root and as a plain user; docs/security.md says which test tries what in which engine.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import uuid

import pytest

from containers.attack import AS_ROOT, MIB, Client, cgroups_of, eventually, processes_with
from medperf.engines.apptainer_options import OVERHEAD_PROCESSES
from medperf.engines.outputs import remove_tree


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


@pytest.mark.guarantee("network")
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


@pytest.mark.guarantee("inputs")
@pytest.mark.guarantee("own files")
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
    if client.is_rootless:
        # Its /dev is memory of its own, of 64 MiB, and belongs to the user that it is.
        del ran.answers["write dev"]
    assert {value.split()[0] for value in ran.answers.values()} == {"refused"}
    assert (ran.folder / "in" / "scan.txt").read_text() == "a patient"


@pytest.mark.guarantee("capabilities")
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
    ids = set(answers["Uid"].split()) | set(answers["Gid"].split())
    assert len(ids) == 1
    tried = ["new user namespace", "new mount namespace", "chroot", "terminal"]
    if client.is_rootless:
        # It is 0 in there, which is the caller's own, unprivileged user.
        assert (ids, ran.uid != 0) == ({"0"}, True)
    else:
        assert ids != {"0"}
        tried.append("set user")
    assert {answers[name].split()[0] for name in tried} == {"refused"}


@pytest.mark.guarantee("processes outside")
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


@pytest.mark.guarantee("kinds")
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


@pytest.mark.guarantee("root")
@pytest.mark.skipif(not AS_ROOT, reason="only root can give the container another user")
def test_a_run_that_root_starts_is_not_roots_on_the_host(one_client: Client) -> None:
    marker = f"marker{uuid.uuid4().hex}"
    command, environment = one_client.command(
        "print('started'); time.sleep(30)", command=["python", "main.py", marker], limits={"wall_seconds": 20}
    )
    driver = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, cwd="/")
    try:
        assert eventually((one_client.folder / "started").exists)
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


@pytest.mark.guarantee("processes")
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
    if bounded_client.is_rootless:
        assert ran.cause == "process_limit"
        return
    # What Apptainer does not need itself of what is left to it is the container's.
    assert int(ran.answers["forks"]) <= 60 + (OVERHEAD_PROCESSES if bounded_client.engine == "apptainer" else 0)
    assert ran.exit_code == 9


@pytest.mark.guarantee("processors")
def test_processor_time_is_bounded_where_it_was_asked_for(bounded_client: Client) -> None:
    if bounded_client.is_rootless:
        assert "processors cannot be bounded: it has no cgroup for that" in bounded_client.weaknesses()
        return
    # Four processes burn what they get for a second; each second has one processor's worth for them together.
    ran = bounded_client.run(
        """
        children = []
        for _ in range(4):
            child = os.fork()
            if child == 0:
                end = time.monotonic() + 1.5
                while time.monotonic() < end:
                    pass
                os._exit(0)
        for _ in range(4):
            os.wait()
        used = os.times()
        print(f"used={used.children_user + used.children_system}")
        """,
        limits={"cpus": 1.0},
    )
    assert ran.exit_code == 0
    # A cgroup gives a period's worth more at most; without it two processors would have given twice as much.
    assert float(ran.answers["used"]) < 2.2


@pytest.mark.guarantee("memory")
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


@pytest.mark.guarantee("memory")
def test_one_process_cannot_take_more_memory_than_the_limit(bounded_client: Client) -> None:
    ran = bounded_client.run(
        "held = [bytearray(b'x') * (10 * 1024 * 1024) for _ in range(60)]; print('got=all')",
        limits={"memory_bytes": 150 * MIB, "wall_seconds": 20},
    )
    assert "got" not in ran.answers
    if bounded_client.cgroups or bounded_client.is_rootless:
        assert ran.cause == "out_of_memory"
    else:
        # At once, before any watcher could look; but for what Apptainer is let reserve beside it.
        is_looked_at = bounded_client.engine == "apptainer" and ran.cause == "out_of_memory"
        assert b"MemoryError" in ran.log or is_looked_at


@pytest.mark.guarantee("outputs")
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


@pytest.mark.guarantee("outputs")
def test_an_output_that_is_too_large_at_the_end_fails_the_run(one_client: Client) -> None:
    ran = one_client.run(
        "for place in range(3): open(f'/mlcube_io1/{place}', 'wb').write(bytes(4 * 1024 * 1024))",
        limits={"output_bytes": 10 * MIB},
    )
    assert ran.cause == "output_limit"


@pytest.mark.guarantee("outputs")
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


@pytest.mark.guarantee("memory folders")
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


@pytest.mark.guarantee("kinds")
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


@pytest.mark.guarantee("printing")
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


@pytest.mark.guarantee("terminal")
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


@pytest.mark.guarantee("time")
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


@pytest.mark.guarantee("end")
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


@pytest.mark.guarantee("end")
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
