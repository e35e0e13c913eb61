"""Where a run's cgroup is made and what is written to it, for both versions, on folders that look like them."""

from pathlib import Path

import pytest

from medperf.engines.cgroup import Hierarchy, make_cgroup, parse_hierarchies

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = """\
31 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 /docker/1 /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"""


def test_version_two_is_found_with_this_process_in_it() -> None:
    found = parse_hierarchies(["0::/user.slice/user-0.slice/session-1.scope"], [V2])
    top = Path("/sys/fs/cgroup")
    assert found == [Hierarchy(2, frozenset(), top, top / "user.slice/user-0.slice/session-1.scope")]


def test_version_one_is_found_by_controller_and_from_inside_a_container() -> None:
    memberships = ["4:memory:/jobs/7", "3:cpu,cpuacct:/", "2:pids:/docker/1/inner", "1:freezer:/", "0::/"]
    own = {hierarchy.controllers: hierarchy.own for hierarchy in parse_hierarchies(memberships, V1.splitlines())}
    assert own[frozenset({"memory"})] == Path("/sys/fs/cgroup/memory/jobs/7")
    assert own[frozenset({"pids"})] == Path("/sys/fs/cgroup/pids/inner")
    assert own[frozenset({"cpu", "cpuacct"})] == Path("/sys/fs/cgroup/cpu,cpuacct")
    assert frozenset({"freezer"}) not in own


def test_a_group_outside_of_what_is_mounted_is_not_used() -> None:
    assert parse_hierarchies(["2:pids:/elsewhere"], V1.splitlines()) == []


def test_version_two_makes_one_group_beside_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scope = tmp_path / "user.slice" / "session-1.scope"
    scope.mkdir(parents=True)
    (scope / "cgroup.subtree_control").write_text("")
    (tmp_path / "user.slice" / "cgroup.subtree_control").write_text("memory pids")
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory pids")
    cgroup = make_cgroup(
        "run/1",
        memory_bytes=1000,
        processes=50,
        cpus=None,
        hierarchies=[Hierarchy(2, frozenset(), tmp_path, scope)],
    )
    assert cgroup.memory == cgroup.processes
    assert cgroup.memory
    assert cgroup.memory.parent == tmp_path / "user.slice"
    assert cgroup.memory.name.endswith("-run1")
    assert (cgroup.memory / "memory.max").read_text() == "1000"
    assert (cgroup.memory / "pids.max").read_text() == "50"
    assert not cgroup.killed_for_memory()
    (cgroup.memory / "memory.events").write_text("low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\n")
    (cgroup.memory / "pids.events").write_text("max 3\n")
    assert cgroup.killed_for_memory()
    assert cgroup.refused_a_process()


def test_where_no_group_can_be_made_there_is_none(tmp_path: Path) -> None:
    own = tmp_path / "not there"
    for hierarchy in (
        Hierarchy(2, frozenset(), tmp_path, own),
        Hierarchy(1, frozenset({"memory"}), tmp_path, own),
    ):
        cgroup = make_cgroup("run", memory_bytes=1, processes=1, cpus=None, hierarchies=[hierarchy])
        assert (cgroup.memory, cgroup.processes) == (None, None)
        assert not cgroup.killed_for_memory()
        assert not cgroup.refused_a_process()
        cgroup.remove()


def test_groups_of_clients_that_were_killed_are_swept(tmp_path: Path) -> None:
    stale = tmp_path / "medperf-4194999-old"  # above the kernel's largest process id
    stale.mkdir()
    living = tmp_path / "medperf-1-current"
    living.mkdir()
    make_cgroup(
        "run",
        memory_bytes=1,
        processes=1,
        cpus=None,
        hierarchies=[Hierarchy(1, frozenset({"pids"}), tmp_path, tmp_path)],
    )
    assert not stale.exists()
    assert living.exists()
