"""Attacks on the limits of output and memory from inside real containers: what a plain look at folders misses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from containers.attack import AS_ROOT, CALLERS, MIB, Client, make_client
from medperf.engines.process import LocalProcess

OUTPUT = {"output_bytes": 10 * MIB, "tmp_bytes": MIB, "wall_seconds": 20}
MEMORY = {"memory_bytes": 150 * MIB, "wall_seconds": 10}


@pytest.fixture
def plain_client(library: Path) -> Iterator[Client]:
    with make_client("sandbox", "user", library) as made:
        yield made


@pytest.fixture(params=CALLERS)
def watched_client(request: pytest.FixtureRequest, library: Path) -> Iterator[Client]:
    """One whose runs no cgroup bounds: the watcher does."""
    with make_client("sandbox", request.param, library, cgroups=False) as made:
        yield made


@pytest.fixture
def root_client(library: Path) -> Iterator[Client]:
    with make_client("sandbox", "root", library) as made:
        yield made


# Output: 60 MiB where 10 are allowed. Each sleeps at the end: the run must be ended before it ends itself.


def test_files_that_were_removed_but_are_open_count_as_output(client: Client) -> None:
    ran = client.run(
        """
        held = []
        for place in range(60):
            held.append(open("/mlcube_io1/removed", "wb"))
            os.unlink("/mlcube_io1/removed")
            held[-1].write(bytes(1024 * 1024))
            held[-1].flush()
            time.sleep(0.02)
        time.sleep(5)
        print("wrote=all")
        """,
        limits=OUTPUT,
    )
    assert (ran.cause, ran.answers) == ("output_limit", {})


def test_files_that_never_had_a_name_count_in_a_thread_with_descriptors_of_its_own(client: Client) -> None:
    ran = client.run(
        """
        import threading
        def hoard():
            try:
                call(libc.unshare(0x400))  # CLONE_FILES: what it opens is in no list of the process's
            except OSError:
                print("unshare=refused")
                return
            for _ in range(60):
                file = os.open("/mlcube_io1", os.O_TMPFILE | os.O_WRONLY)
                os.write(file, bytes(1024 * 1024))
                time.sleep(0.02)
            time.sleep(5)
            print("wrote=all")
        threading.Thread(target=hoard).start()
        """,
        limits=OUTPUT,
    )
    if client.engine != "sandbox" and ran.answers:  # its own filter of system calls was first
        assert ran.answers == {"unshare": "refused"}
        return
    assert (ran.cause, ran.answers) == ("output_limit", {})


def test_a_process_that_hides_what_it_holds_from_a_plain_user_is_ended(plain_client: Client) -> None:
    ran = plain_client.run(
        """
        call(libc.prctl(4, 0, 0, 0, 0))  # PR_SET_DUMPABLE
        time.sleep(10)
        print("hid=all")
        """,
        limits=OUTPUT,
    )
    assert (ran.error, ran.answers) == ("ContainerFailed", {})
    assert "keeps what it holds open from being seen" in ran.message


def test_files_in_folders_deeper_than_is_allowed_end_the_run(client: Client) -> None:
    ran = client.run(
        """
        os.chdir("/mlcube_io1")
        for _ in range(70):
            os.mkdir("deep")
            os.chdir("deep")
        for place in range(60):
            open(str(place), "wb").write(bytes(1024 * 1024))
            time.sleep(0.02)
        time.sleep(5)
        print("wrote=all")
        """,
        limits=OUTPUT,
    )
    assert (ran.error, ran.answers) == ("ContainerFailed", {})
    assert "more than 64 deep" in ran.message


def test_files_in_a_path_longer_than_the_kernel_takes_count_as_output(client: Client) -> None:
    ran = client.run(
        """
        os.chdir("/mlcube_io1")
        for _ in range(20):
            os.mkdir("d" * 255)
            os.chdir("d" * 255)
        for place in range(60):
            open(str(place), "wb").write(bytes(1024 * 1024))
            time.sleep(0.02)
        time.sleep(5)
        print("wrote=all")
        """,
        limits=OUTPUT,
    )
    assert (ran.cause, ran.answers) == ("output_limit", {})


@pytest.mark.parametrize("mode", [0, 0o400, 0o300])
def test_files_in_a_folder_that_was_closed_count_as_output_while_it_runs(client: Client, mode: int) -> None:
    ran = client.run(
        f"""
        os.mkdir("/mlcube_io1/closed")
        held = [open(f"/mlcube_io1/closed/{{place}}", "wb") for place in range(60)]
        os.chmod("/mlcube_io1/closed", {mode})
        for file in held:
            file.write(bytes(1024 * 1024))
            file.flush()
            time.sleep(0.02)
        time.sleep(5)
        print("wrote=all")
        """,
        limits=OUTPUT,
    )
    assert (ran.cause, ran.answers) == ("output_limit", {})


def test_what_a_folder_that_was_closed_holds_counts_at_the_end(client: Client) -> None:
    # So many files that looking at them is not worth it again before the end.
    ran = client.run(
        """
        os.mkdir("/mlcube_io1/closed")
        for place in range(15_000):
            open(f"/mlcube_io1/closed/{place}", "wb").close()
        time.sleep(0.3)
        for place in range(3):
            open(f"/mlcube_io1/closed/large{place}", "wb").write(bytes(4 * 1024 * 1024))
        os.chmod("/mlcube_io1/closed", 0)
        """,
        limits={**OUTPUT, "output_bytes": 15_000 * 4096 + 10 * MIB},
    )
    assert ran.cause == "output_limit"


def test_a_folder_that_is_swapped_for_a_link_does_not_lead_the_watcher_elsewhere(client: Client) -> None:
    ran = client.run(
        """
        os.chdir("/mlcube_io1")
        for place in range(1000):
            open(str(place), "w").close()
        os.mkdir("folder")
        os.symlink("/usr", "link")
        end = time.monotonic() + 2
        while time.monotonic() < end:
            call(libc.renameat2(-100, b"folder", -100, b"link", 2))  # RENAME_EXCHANGE
        os.unlink("folder" if os.path.islink("folder") else "link")
        print("swapped=all")
        """,
        limits=OUTPUT,
    )
    assert (ran.cause, ran.answers) == ("exit_code", {"swapped": "all"})


# Memory, where only the watcher bounds it: each holds a multiple of the limit in what RLIMIT_DATA leaves out.


def test_memory_files_count_as_memory(watched_client: Client) -> None:
    ran = watched_client.run(
        """
        for _ in range(20):
            file = os.memfd_create("hoard")
            os.write(file, bytes(50 * 1024 * 1024))
            time.sleep(0.02)
        time.sleep(5)
        print("got=all")
        """,
        limits=MEMORY,
    )
    assert (ran.cause, ran.answers) == ("out_of_memory", {})


def test_what_each_process_shares_with_nobody_counts_in_each(watched_client: Client) -> None:
    ran = watched_client.run(
        """
        import mmap
        for _ in range(5):
            if os.fork() == 0:
                break
        held = mmap.mmap(-1, 60 * 1024 * 1024)  # shared, as it happens with nobody
        for _ in range(60):
            held.write(b"x" * 1024 * 1024)
            time.sleep(0.01)
        time.sleep(5)
        print("got=all")
        """,
        limits=MEMORY,
    )
    assert (ran.cause, ran.answers) == ("out_of_memory", {})


def test_what_all_processes_share_counts_once(watched_client: Client) -> None:
    ran = watched_client.run(
        """
        import mmap
        shared = mmap.mmap(-1, 60 * 1024 * 1024)
        shared.write(b"x" * len(shared))
        own = bytearray(b"x" * 20 * 1024 * 1024)
        file = os.memfd_create("mapped")
        os.ftruncate(file, 20 * 1024 * 1024)
        mapped = mmap.mmap(file, 0)
        mapped.write(b"x" * len(mapped))
        first = os.getpid()
        for _ in range(3):
            if os.getpid() == first:
                os.fork()
        for memory in (shared, mapped, own):
            sum(memory[::4096])
        time.sleep(1.5)
        if os.getpid() == first:
            print("got=all")
        """,
        limits=MEMORY,
    )
    assert (ran.cause, ran.exit_code, ran.answers) == ("exit_code", 0, {"got": "all"})


def test_memory_files_and_shared_memory_count_together(watched_client: Client) -> None:
    ran = watched_client.run(
        """
        import mmap
        os.write(os.memfd_create("hoard"), bytes(100 * 1024 * 1024))
        mmap.mmap(-1, 100 * 1024 * 1024).write(b"x" * 100 * 1024 * 1024)
        held = mmap.mmap(-1, 100 * 1024 * 1024)
        held.write(b"x" * len(held))
        time.sleep(5)
        print("got=all")
        """,
        limits=MEMORY,
    )
    assert (ran.cause, ran.answers) == ("out_of_memory", {})


@pytest.mark.parametrize("folder", ["/tmp", "/dev/shm"])
def test_folders_in_memory_count_as_memory(watched_client: Client, folder: str) -> None:
    ran = watched_client.run(
        f"""
        for place in range(40):
            with open("{folder}/%d" % place, "wb") as file:
                file.write(bytes(10 * 1024 * 1024))
            time.sleep(0.02)
        time.sleep(5)
        print("got=all")
        """,
        limits={**MEMORY, "tmp_bytes": 500 * MIB},
    )
    assert (ran.cause, ran.answers) == ("out_of_memory", {})


@pytest.mark.skipif(not AS_ROOT, reason="only root can make the cgroup that bounds it here")
def test_folders_in_memory_count_as_memory_in_a_cgroup_too(root_client: Client) -> None:
    ran = root_client.run(
        """
        with open("/tmp/hoard", "wb") as file:
            for _ in range(40):
                file.write(bytes(10 * 1024 * 1024))
        print("got=all")
        """,
        limits={**MEMORY, "tmp_bytes": 500 * MIB},
    )
    assert (ran.cause, ran.answers) == ("out_of_memory", {})


# What is only seen from inside


def test_it_has_a_session_of_its_own_and_leaves_no_core(client: Client) -> None:
    ran = client.run(
        """
        import resource
        print("sessions=" + ",".join(sorted({open(f"/proc/{name}/stat").read().rpartition(")")[2].split()[3]
            for name in os.listdir("/proc") if name.isdigit()})))
        print(f"core={resource.getrlimit(resource.RLIMIT_CORE)}")
        """
    )
    # A rootless Podman sets the first of the two alone.
    assert ran.answers["core"] == ("(0, -1)" if client.is_rootless else "(0, 0)")
    if client.engine == "apptainer":
        # The launcher's, which leads it from outside of the namespaces; a test of the launcher says whose that is.
        assert ran.answers["sessions"] == "0"
        return
    assert "0" not in ran.answers["sessions"].split(","), "a session of the client's, whose terminal it could use"


def test_a_launcher_has_a_session_of_its_own() -> None:
    process = LocalProcess()
    try:
        assert os.getsid(process.pid) == process.pid
    finally:
        process.end()
