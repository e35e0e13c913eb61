"""A confinement in Docker's words, read as one value."""

from __future__ import annotations

import dataclasses
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from medperf.engines.base import Image, Limits, Mount, TaskSpec
from medperf.engines.confinement import Caller, confine
from medperf.engines.docker_options import EngineFacts, docker_options
from medperf.errors import EngineUnavailable

EVERY_ID = ((0, 2**32 - 1),)
ANA = Caller(1000, 1001, EVERY_ID)
ROOT = Caller(0, 0, EVERY_ID)
PLAIN = EngineFacts(is_rootless=False, remaps_ids=False)
SPEC = TaskSpec(
    run_id="run1",
    task="infer",
    arguments=("infer", "--data_path=/mlcube_io0", "--output_path=/mlcube_io1"),
    mounts=(
        Mount(Path("/data/images"), PurePosixPath("/mlcube_io0"), writable=False),
        Mount(Path("/runs/1/output_path"), PurePosixPath("/mlcube_io1"), writable=True),
    ),
    code=None,
    sandbox=None,
    log=Path("/runs/1/log"),
    limits=Limits(memory_bytes=10**9, tmp_bytes=1000, output_bytes=2000, log_bytes=3000, processes=7),
    environment={"MODE": "fast", "HOME": "/evil"},
    image=Image("model:1.0", "ab" * 32),
)


def options(
    spec: TaskSpec = SPEC, caller: Caller = ANA, facts: EngineFacts = PLAIN, volumes: tuple[str, ...] = ()
) -> dict[str, Any]:
    return docker_options(
        spec,
        confine(spec, caller),
        image_id="sha256:" + "ab" * 32,
        volumes=tuple(PurePosixPath(path) for path in volumes),
        caller=caller,
        facts=facts,
        home=Path("/home/ana/.medperf/server"),
    )


def test_everything_that_docker_is_told_of_a_task() -> None:
    told = options()
    mounts = [dict(mount) for mount in told.pop("mounts")]
    limits = {dict(one)["Name"]: (dict(one)["Soft"], dict(one)["Hard"]) for one in told.pop("ulimits")}
    log = dict(told.pop("log_config"))
    assert told == {
        "image": "sha256:" + "ab" * 32,
        "command": ["infer", "--data_path=/mlcube_io0", "--output_path=/mlcube_io1"],
        "labels": {"org.medperf.run": "run1", "org.medperf.home": "/home/ana/.medperf/server"},
        "hostname": "container",
        "environment": {"MODE": "fast", "HOME": "/tmp", "TMPDIR": "/tmp", "USER": "container"},
        "use_config_proxy": False,
        "user": "1000:1001",
        "network_mode": "none",
        "read_only": True,
        "cap_drop": ["ALL"],
        "cap_add": [],
        "security_opt": ["no-new-privileges:true"],
        "tmpfs": {"/tmp": "rw,exec,nosuid,nodev,mode=1777,size=1000"},
        "shm_size": 1000,
        "mem_limit": 10**9,
        "memswap_limit": 10**9,
        "pids_limit": 7,
        "healthcheck": {"test": ["NONE"]},
        "stdin_open": False,
        "tty": False,
        "detach": True,
    }
    assert [(mount["Source"], mount["Target"], mount["Type"], mount["ReadOnly"]) for mount in mounts] == [
        ("/data/images", "/mlcube_io0", "bind", True),
        ("/runs/1/output_path", "/mlcube_io1", "bind", False),
    ]
    assert limits == {"fsize": (2000, 2000), "core": (0, 0)}
    assert (log["Type"], log["Config"]) == ("json-file", {"max-size": "3000", "max-file": "2"})


def test_no_container_is_root() -> None:
    users = {options(dataclasses.replace(SPEC, run_id=f"run{number}"), ROOT)["user"] for number in range(20)}
    assert len(users) == 20
    assert all(int(user.partition(":")[0]) >= 2_000_000_000 for user in users)


def test_the_first_user_of_a_rootless_engine_is_the_caller_and_is_taken() -> None:
    assert options(facts=EngineFacts(is_rootless=True, remaps_ids=False))["user"] == "0:0"


def test_an_engine_that_remaps_ids_is_told_not_to() -> None:
    assert options(facts=EngineFacts(is_rootless=False, remaps_ids=True))["userns_mode"] == "host"
    assert "userns_mode" not in options()


@pytest.mark.parametrize("id_ranges", [((0, 1),), ((0, 1), (1, 65536))])
def test_root_of_a_user_namespace_only_is_refused_by_an_engine_that_does_not_know_it(
    id_ranges: tuple[tuple[int, int], ...],
) -> None:
    with pytest.raises(EngineUnavailable, match="user namespace"):
        options(caller=Caller(0, 0, id_ranges))
    assert options(caller=Caller(0, 0, id_ranges), facts=EngineFacts(True, False))["user"] == "0:0"


def test_volumes_of_an_image_are_bounded_memory_unless_a_mount_is_there() -> None:
    told = options(volumes=("/var/cache", "/mlcube_io0"))["tmpfs"]
    assert told == dict.fromkeys(("/tmp", "/var/cache"), "rw,exec,nosuid,nodev,mode=1777,size=1000")


def test_a_layer_to_write_to_is_given_only_where_it_was_agreed_to() -> None:
    assert options(dataclasses.replace(SPEC, root_is_writable=True))["read_only"] is False


def test_an_entrypoint_of_the_manifest_replaces_the_images() -> None:
    assert "entrypoint" not in options()
    assert options(dataclasses.replace(SPEC, entrypoint="/opt/run.sh"))["entrypoint"] == ["/opt/run.sh"]


@pytest.mark.parametrize(("cpus", "told"), [(None, None), (1.5, 1_500_000_000)])
def test_processor_time_is_bounded_where_it_was_asked_for(cpus: float | None, told: int | None) -> None:
    spec = dataclasses.replace(SPEC, limits=dataclasses.replace(SPEC.limits, cpus=cpus))
    assert options(spec).get("nano_cpus") == told


def test_shared_memory_is_what_the_manifest_asks_for() -> None:
    assert options(dataclasses.replace(SPEC, shm_bytes=5000))["shm_size"] == 5000


def test_selinux_is_told_to_leave_the_files_labels_alone() -> None:
    told = options(facts=dataclasses.replace(PLAIN, has_selinux=True))
    assert told["security_opt"] == ["no-new-privileges:true", "label=disable"]


def test_a_filter_of_system_calls_is_named_by_its_file() -> None:
    told = options(facts=dataclasses.replace(PLAIN, seccomp=Path("/home/ana/seccomp.json")))
    assert told["security_opt"] == ["no-new-privileges:true", "seccomp=/home/ana/seccomp.json"]


def test_an_engine_is_not_asked_for_bounds_that_it_cannot_hold() -> None:
    spec = dataclasses.replace(SPEC, limits=dataclasses.replace(SPEC.limits, cpus=1.5))
    everything = frozenset({"memory", "processes", "processors"})
    bounds = {"mem_limit", "memswap_limit", "pids_limit", "nano_cpus"}
    assert bounds <= options(spec).keys()
    assert not bounds & options(spec, facts=dataclasses.replace(PLAIN, cannot_bound=everything)).keys()


def test_files_and_processes_are_bounded_by_what_the_caller_has() -> None:
    told = options(facts=dataclasses.replace(PLAIN, own_limits={"nofile": 1024, "nproc": 4096}))
    limits = {dict(one)["Name"]: dict(one)["Hard"] for one in told["ulimits"]}
    assert (limits["nofile"], limits["nproc"]) == (1024, 4096)


def test_folders_that_the_engine_makes_memory_anyhow_are_bounded() -> None:
    told = options(facts=dataclasses.replace(PLAIN, memory_folders=(PurePosixPath("/run"),)))
    assert "size=1000" in told["tmpfs"]["/run"]
