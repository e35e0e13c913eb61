"""What a container may do, read as one value."""

import dataclasses
from pathlib import Path, PurePosixPath
from types import MappingProxyType

import pytest

from medperf.engines.base import Cause, Limits, Mount, Outcome, TaskSpec, failure
from medperf.engines.bubblewrap import Layout, Machine, bubblewrap_command, lay_out
from medperf.engines.confinement import Caller, confine
from medperf.engines.machine import remedy
from medperf.errors import EngineUnavailable
from medperf.manifest.model import Sandbox

MACHINE = Machine(
    caller=Caller(1000, 1000, ((0, 2**32 - 1),)),
    home=Path("/home/ana"),
    bubblewrap=Path("/usr/bin/bwrap"),
    bubblewrap_version=(0, 8, 0),
    interpreter=Path("/usr/bin/python3.11"),
    base_prefix=Path("/usr"),
    top_folders=MappingProxyType({"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64"}),
    loader_files=(Path("/etc/ld.so.cache"),),
)
SPEC = TaskSpec(
    run_id="run1",
    task="infer",
    arguments=("infer", "--data_path=/mlcube_io0", "--output_path=/mlcube_io1"),
    mounts=(
        Mount(Path("/data/images"), PurePosixPath("/mlcube_io0"), writable=False),
        Mount(Path("/runs/1/output_path"), PurePosixPath("/mlcube_io1"), writable=True),
    ),
    code=Path("/store/code"),
    sandbox=Sandbox(("python", "main.py"), ()),
    log=Path("/runs/1/log"),
    limits=Limits(memory_bytes=10**9, tmp_bytes=1000, output_bytes=2000),
    environment={"MODE": "fast", "PATH": "/evil", "HOME": "/evil"},
)


ROOT = Caller(0, 0, MACHINE.caller.id_ranges)


def confined(machine: Machine = MACHINE, spec: TaskSpec = SPEC, packages: Path | None = None) -> Layout:
    confinement = confine(spec, machine.caller)
    return lay_out(spec, confinement, machine, packages=packages, scratch=Path("/scratch"))


def command(layout: Layout) -> str:
    return " ".join(bubblewrap_command(layout, status_descriptor=9))


def test_the_whole_command_line_of_a_task() -> None:
    assert command(confined(packages=Path("/store/packages"))) == (
        "/usr/bin/bwrap --unshare-all --unshare-user --cap-drop ALL --uid 65534 --gid 65534 --hostname container "
        "--die-with-parent --new-session --json-status-fd 9 --disable-userns "
        "--ro-bind /usr /usr --ro-bind /etc/ld.so.cache /etc/ld.so.cache "
        "--symlink usr/bin /bin --symlink usr/lib /lib --symlink usr/lib64 /lib64 "
        "--proc /proc --dev /dev --size 1000 --tmpfs /dev/shm --size 1000 --tmpfs /tmp "
        "--ro-bind /store/packages /mlcube_packages --ro-bind /store/code /mlcube_code "
        "--ro-bind /data/images /mlcube_io0 --bind /runs/1/output_path /mlcube_io1 "
        "--remount-ro /dev --remount-ro / "
        "--chdir /mlcube_code "
        '-- /bin/sh -c echo && read -r go && exec /usr/bin/env -i "$@" </dev/null sh '
        "PATH=/usr/bin:/usr/bin:/bin PWD=/mlcube_code MODE=fast HOME=/tmp TMPDIR=/tmp USER=container LANG=C.UTF-8 "
        "PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONNOUSERSITE=1 PYTHONPATH=/mlcube_packages "
        "/usr/bin/python3.11 main.py infer --data_path=/mlcube_io0 --output_path=/mlcube_io1"
    )


def test_only_declared_outputs_can_be_written() -> None:
    mounts = (*confined().system, *confined().mounts)
    assert [mount.inside for mount in mounts if mount.writable] == [PurePosixPath("/mlcube_io1")]


def test_a_containers_environment_does_not_replace_ours() -> None:
    environment = confined().environment
    assert environment["MODE"] == "fast"
    assert environment["PATH"] == "/usr/bin:/usr/bin:/bin"
    assert environment["HOME"] == environment["TMPDIR"] == "/tmp"
    assert "PYTHONPATH" not in environment
    assert confined(packages=Path("/p")).environment["PYTHONPATH"] == "/mlcube_packages"


def test_an_interpreter_under_a_home_folder_brings_its_own_folder_alone(tmp_path: Path) -> None:
    real = tmp_path / "pyenv" / "versions" / "3.11.7"
    (real / "bin").mkdir(parents=True)
    other_name = tmp_path / "pyenv" / "versions" / "3.11"
    other_name.symlink_to(real)
    machine = dataclasses.replace(
        MACHINE, home=tmp_path, interpreter=real / "bin" / "python3.11", base_prefix=other_name
    )
    mounts = [mount for mount in confined(machine).mounts if not str(mount.inside).startswith("/mlcube_")]
    assert mounts == [Mount(real, PurePosixPath(path), writable=False) for path in (real, other_name)]
    assert confined(machine).command[0] == str(real / "bin" / "python3.11")


@pytest.mark.parametrize(
    ("base_prefix", "interpreter"),
    [("/", "/bin/python3"), ("/home", "/home/bin/python3"), ("/home/ana", "/home/ana/bin/python3"),
     ("/opt/python", "/srv/bin/python3")],
)  # fmt: skip
def test_an_installation_that_would_show_more_than_python_is_refused(base_prefix: str, interpreter: str) -> None:
    machine = dataclasses.replace(MACHINE, base_prefix=Path(base_prefix), interpreter=Path(interpreter))
    with pytest.raises(EngineUnavailable, match="cannot be shown"):
        confined(machine)


def test_folders_that_are_not_links_into_usr_are_shown_read_only() -> None:
    machine = dataclasses.replace(MACHINE, top_folders=MappingProxyType({"lib": None, "lib64": "usr/lib64"}))
    assert Mount(Path("/lib"), PurePosixPath("/lib"), writable=False) in confined(machine).system
    assert confined(machine).links == (("usr/lib64", "/lib64"),)


def test_root_gives_each_run_an_unprivileged_user_of_its_own() -> None:
    root = dataclasses.replace(MACHINE, caller=ROOT)
    ids = {confine(dataclasses.replace(SPEC, run_id=f"run{number}"), ROOT).real_id for number in range(50)}
    assert len(ids) == 50
    assert all(2_000_000_000 <= number < 2_100_000_000 for number in ids if number)
    assert None not in ids
    # The launcher binds what that user may not reach to places of its own.
    assert "--ro-bind /tmp/1 /mlcube_io0 --bind /tmp/2 /mlcube_io1" in command(confined(root))
    assert confine(SPEC, MACHINE.caller).real_id is None


def test_root_of_a_rootless_container_gives_an_id_that_it_has() -> None:
    real_id = confine(SPEC, Caller(0, 0, ((0, 1), (1, 65536)))).real_id
    assert real_id is not None
    assert 32768 < real_id <= 65536
    assert confine(SPEC, Caller(0, 0, ((0, 1),))).real_id is None


def test_an_older_bubblewrap_gets_only_what_it_knows() -> None:
    older = command(confined(dataclasses.replace(MACHINE, bubblewrap_version=(0, 6, 1))))
    assert "--size" not in older
    assert "--tmpfs" not in older
    assert "--disable-userns" not in older
    assert "--bind /scratch /tmp" in older
    with pytest.raises(EngineUnavailable, match=r"0\.3\.1 is too old"):
        confined(dataclasses.replace(MACHINE, bubblewrap_version=(0, 3, 1)))


def test_a_container_without_a_sandbox_section_is_refused() -> None:
    with pytest.raises(EngineUnavailable, match="no sandbox section"):
        confined(spec=dataclasses.replace(SPEC, sandbox=None))


def test_a_confinement_cannot_be_changed() -> None:
    confinement = confine(SPEC, MACHINE.caller)
    with pytest.raises(dataclasses.FrozenInstanceError):
        confinement.real_id = 0  # type: ignore[misc]
    with pytest.raises(TypeError):
        confinement.environment["PATH"] = "/"  # type: ignore[index]


def test_a_failure_names_task_cause_and_file_with_the_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "infer.log"
    log.write_bytes(b"\n".join(b"line %d" % number for number in range(30)) + b"\n\x1b[31mboom\x1b[0m\n\n")
    error = failure(dataclasses.replace(SPEC, log=log), Outcome(Cause.EXIT_CODE, 7, 1.0))
    assert "'infer' ended with exit code 7" in str(error)
    assert str(error).endswith("    line 29\n    boom")
    assert "line 20" not in str(error)
    assert str(log) in error.hint


# Of the others no engine says that a run ended so: whoever starts it, or reads what it wrote, does.
OF_ENGINES = [
    Cause.EXIT_CODE,
    Cause.TIME_LIMIT,
    Cause.OUT_OF_MEMORY,
    Cause.OUTPUT_LIMIT,
    Cause.PROCESS_LIMIT,
    Cause.CANCELLED,
    Cause.ENGINE_GONE,
]


@pytest.mark.parametrize("cause", OF_ENGINES)
def test_every_cause_has_its_own_words(cause: Cause, tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, log=tmp_path / "no log yet")
    texts = {str(failure(spec, Outcome(other, None, 1.0))) for other in OF_ENGINES}
    assert len(texts) == len(OF_ENGINES)
    assert failure(spec, Outcome(cause, None, 1.0)).hint


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("bwrap: Unknown option --disable-userns", "too old"),
        ("bwrap: Creating new namespace failed: Operation not permitted", "namespaces"),
        ("bwrap: No permissions to create new namespace", "namespaces"),
        ("something else", "Look at the message"),
    ],
)
def test_a_bubblewrap_that_does_not_work_gets_a_remedy(
    output: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medperf.engines.machine._sysctl", lambda name: None)
    assert words in remedy(output, Path("/usr/bin/bwrap"))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "apparmor_parser -r /etc/apparmor.d/bwrap"),
        ("kernel.unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        ("user.max_user_namespaces", "0", "sysctl -w user.max_user_namespaces="),
    ],
)
def test_a_kernel_setting_that_forbids_it_is_named(
    name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medperf.engines.machine._sysctl", {name: value}.get)
    assert words in remedy("bwrap: setting up uid map: Permission denied", Path("/usr/bin/bwrap"))
