"""A client in small, run as a program of its own so that a test can be it as any user, and can kill it.

Reads a case as JSON from the file that it is given, runs the case's code in the sandbox, and prints what a client
would know as one line of JSON.
"""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path, PurePosixPath

from medperf.engines.base import Limits, Mount, TaskSpec
from medperf.engines.machine import read_machine
from medperf.engines.outputs import check_outputs
from medperf.engines.sandbox import SandboxEngine
from medperf.errors import ClientError
from medperf.manifest.model import Sandbox


def main(case_file: str) -> None:
    case = json.loads(Path(case_file).read_text())
    folder = Path(case["folder"])
    said: dict[str, object] = {"uid": os.getuid()}
    if case.get("probe"):
        try:
            SandboxEngine(folder / "packages").probe()
            said["probed"] = True
        except ClientError as error:
            said.update(error=type(error).__name__, message=str(error), hint=error.hint)
        print(json.dumps({**said, "lines": []}))
        return
    machine = read_machine()
    if case.get("bubblewrap_version"):
        machine = dataclasses.replace(machine, bubblewrap_version=tuple(case["bubblewrap_version"]))
    engine = SandboxEngine(
        folder / "packages", machine=machine, hierarchies=None if case.get("cgroups", True) else []
    )
    spec = TaskSpec(
        run_id=case["run_id"],
        task="attack",
        arguments=tuple(case.get("arguments", ())),
        mounts=(
            Mount(folder / "in", PurePosixPath("/mlcube_io0"), writable=False),
            Mount(folder / "out", PurePosixPath("/mlcube_io1"), writable=True),
        ),
        code=folder / "code",
        sandbox=Sandbox(tuple(case.get("command", ("python", "main.py"))), ()),
        log=folder / "log",
        limits=Limits(**case.get("limits", {})),
        environment=case.get("environment", {}),
    )
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
        said.update(cause=outcome.cause, exit_code=outcome.exit_code, seconds=outcome.seconds)
        check_outputs(folder / "out")
    except KeyboardInterrupt:
        said["interrupted"] = True
    except ClientError as error:
        said.update(error=type(error).__name__, message=str(error), hint=error.hint)
    said.update(lines=lines[-200:], forgotten=engine.find(spec.run_id) is None)
    print(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1])
