"""A client in small, run as a program of its own so that a test can be it as any user, and can kill it.

Reads a case as JSON from the file that it is given, runs the case's code in the case's engine, and prints what a
client would know as one line of JSON.
"""

import contextlib
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from medperf.engines.apptainer import ApptainerEngine
from medperf.engines.base import Engine, Image, Limits, Mount, TaskSpec
from medperf.engines.docker import BACK_SECONDS, DockerEngine
from medperf.engines.docker_connection import DOCKER, podman
from medperf.engines.machine import read_machine
from medperf.engines.outputs import check_outputs
from medperf.engines.sandbox import SandboxEngine
from medperf.errors import ClientError, EngineUnavailable
from medperf.manifest.model import Sandbox

PACKAGES = "packages"


def main(case_file: str) -> None:
    case = json.loads(Path(case_file).read_text())
    folder = Path(case["folder"])
    said: dict[str, object] = {"uid": os.getuid()}
    if case.get("probe"):
        try:
            is_apptainer = case["engine"] == "apptainer"
            said["probed"] = (
                ApptainerEngine(folder) if is_apptainer else SandboxEngine(folder / PACKAGES)
            ).probe() or True
        except ClientError as error:
            said.update(error=type(error).__name__, message=str(error), hint=error.hint)
        print(json.dumps({**said, "lines": []}))
        return
    engine = ENGINES[case["engine"]](case, folder)
    if case.get("weaknesses"):
        print(json.dumps({**said, "weaknesses": engine.weaknesses(), "lines": []}))
        return
    spec = sandbox_spec(case, folder) if case["engine"] == "sandbox" else image_spec(case, folder)
    lines: list[str] = []

    def on_line(line: str) -> None:
        lines.append(line)
        if line == "interrupt me":
            raise KeyboardInterrupt
        if line == "started":
            Path(folder, "started").write_text(str(os.getpid()))

    if case.get("ignores_interrupts"):
        signal.signal(signal.SIGINT, lambda _number, _frame: None)
    try:
        engine.start(spec)
        outcome = engine.wait(spec.run_id, on_line=on_line)
        engine.discard(spec.run_id)
        said.update(
            cause=outcome.cause, exit_code=outcome.exit_code, seconds=outcome.seconds, advice=outcome.advice
        )
        check_outputs(folder / "out")
    except KeyboardInterrupt:
        said["interrupted"] = True
    except ClientError as error:
        said.update(error=type(error).__name__, message=str(error), hint=error.hint)
    said.update(lines=lines[-200:])
    with contextlib.suppress(EngineUnavailable):  # what is said is said; an engine may have gone meanwhile
        said.update(forgotten=engine.find(spec.run_id) is None)
    print(json.dumps(said))


def docker(case: dict[str, Any], folder: Path) -> DockerEngine:
    daemon = DOCKER if case["engine"] == "docker" else podman()
    return DockerEngine(
        Path(case.get("home", folder)), daemon, back_seconds=case.get("back_seconds", BACK_SECONDS)
    )


def apptainer(case: dict[str, Any], folder: Path) -> ApptainerEngine:
    return ApptainerEngine(folder, hierarchies=None if case.get("cgroups", True) else [])


def sandbox(case: dict[str, Any], folder: Path) -> SandboxEngine:
    machine = read_machine()
    if case.get("bubblewrap_version"):
        machine = dataclasses.replace(machine, bubblewrap_version=tuple(case["bubblewrap_version"]))
    return SandboxEngine(folder / PACKAGES, machine=machine, hierarchies=None if case.get("cgroups", True) else [])


def sandbox_spec(case: dict[str, Any], folder: Path) -> TaskSpec:
    return dataclasses.replace(
        common(case, folder),
        arguments=tuple(case.get("arguments", ())),
        code=folder / "code",
        sandbox=Sandbox(tuple(case.get("command", ("python", "main.py"))), ()),
    )


def image_spec(case: dict[str, Any], folder: Path) -> TaskSpec:
    """The same code under an image's own Python: one of the inputs, where the sandbox has it too."""
    spec = common(case, folder)
    program, *words = case.get("command", ("python", "main.py"))
    words = [f"/mlcube_code/{word}" if word == "main.py" else word for word in words]
    return dataclasses.replace(
        spec,
        entrypoint="python3" if program == "python" else program,
        arguments=(*words, *case.get("arguments", ())),
        mounts=(*spec.mounts, Mount(folder / "code", PurePosixPath("/mlcube_code"), writable=False)),
        image=Image(
            case.get("image", "medperf-test/base:latest"),
            case["image_sha256"],
            sif=(lambda: Path(case["sif"])) if case.get("sif") else None,
        ),
        root_is_writable=case.get("root_is_writable", False),
        environment={**spec.environment, "PYTHONUNBUFFERED": "1"},
    )


def common(case: dict[str, Any], folder: Path) -> TaskSpec:
    return TaskSpec(
        run_id=case["run_id"],
        task="attack",
        arguments=(),
        mounts=(
            Mount(folder / "in", PurePosixPath("/mlcube_io0"), writable=False),
            Mount(folder / "out", PurePosixPath("/mlcube_io1"), writable=True),
            *(
                Mount(Path(host), PurePosixPath(to), writable=False)
                for host, to in case.get("more_inputs", {}).items()
            ),
            *(
                Mount(Path(host), PurePosixPath(to), writable=True)
                for host, to in case.get("more_outputs", {}).items()
            ),
        ),
        code=None,
        sandbox=None,
        log=folder / "log",
        limits=Limits(**case.get("limits", {})),
        environment=case.get("environment", {}),
        neighbours=case.get("neighbours", 0),
    )


ENGINES: dict[str, Callable[[dict[str, Any], Path], Engine]] = {
    "docker": docker,
    "podman": docker,
    "apptainer": apptainer,
    "sandbox": sandbox,
}

if __name__ == "__main__":
    main(sys.argv[1])
