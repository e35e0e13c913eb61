"""The process of one run that is this client's child: the launcher, its output, and its end."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from medperf.engines import launch
from medperf.engines.bubblewrap import AT_GATE

_READ_BYTES = 64 * 1024
# After SIGKILL the kernel needs moments; longer than this is a machine in trouble, not a container.
_END_SECONDS = 30.0


class LocalProcess:
    """The launcher, waiting for its plan. It dies with the thread that made it.

    What runs behind a gate begins once its output is read: it waits inside until it is told that bubblewrap lives,
    and ends there where nobody tells it. Else, where bubblewrap is ended while it makes the sandbox, what is in
    there would go on alone: the kernel ends it with bubblewrap only if that lived when asked.
    """

    def __init__(self) -> None:
        self.output, tell_output = os.pipe()
        self._status, self.tell_status = os.pipe()
        plan, self._gate = os.pipe()
        self._is_at_gate = True
        self._status_text = b""
        self._open = {self.output, self._status}
        self._held = [self.output, self._status]
        self._has_plan = False
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", launch.__file__],
                stdin=plan,
                stdout=tell_output,
                stderr=tell_output,
                pass_fds=(self.tell_status,),
                cwd="/",
                start_new_session=True,  # a terminal's Ctrl-C is for the client, which then stops the run
            )
        finally:
            for descriptor in (tell_output, plan):
                os.close(descriptor)
        self.pid = self._process.pid

    def hand_over(self, plan: Mapping[str, object], *, has_gate: bool) -> None:
        """Let the launcher go on with its plan; whether its command waits at a gate."""
        text = json.dumps(plan).encode()
        self._has_plan = True
        # One that has died already has said why on its output.
        with contextlib.suppress(BrokenPipeError), os.fdopen(self._gate, "wb", closefd=False) as stream:
            stream.write(text + b"\n")
        if not has_gate:
            self._leave_gate(opened=False)
        os.close(self.tell_status)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def has_output(self) -> bool:
        """Whether output may still come: what waits outside holds it open itself, so its end is the run's."""
        return self.output in self._open

    def read(self, timeout_seconds: float) -> bytes:
        """What came on its output, at once or within the timeout."""
        ready = select.select(list(self._open), [], [], timeout_seconds)[0]
        received = {descriptor: os.read(descriptor, _READ_BYTES) for descriptor in ready}
        self._open -= {descriptor for descriptor, data in received.items() if not data}
        self._status_text += received.get(self._status, b"")
        output = received.get(self.output, b"")
        if self._is_at_gate and output:
            # Anything else is why the sandbox could not be made.
            self._leave_gate(opened=output.startswith(AT_GATE) and self.is_running)
            return output.removeprefix(AT_GATE)
        return output

    def _leave_gate(self, *, opened: bool) -> None:
        self._is_at_gate = False
        with contextlib.suppress(BrokenPipeError):
            os.write(self._gate, b"go\n" if opened else b"")
        os.close(self._gate)

    def kill(self) -> None:
        # Its group, not it alone: a child that bubblewrap has just made waits for it, and would for ever.
        # Nobody else has the group's number while the process is not reaped.
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def end(self) -> dict[str, int]:
        """Kill what still runs and wait until nothing of it is left; what was reported, as `exit-code`.

        A report without `child-pid` is a confinement that could not be made. Where it was interrupted it can be
        called again.
        """
        self.kill()
        if self._is_at_gate:
            self._leave_gate(opened=False)
        if not self._has_plan:
            # Our own end of the status would keep it from ending.
            os.close(self.tell_status)
            self._has_plan = True
        deadline = time.monotonic() + _END_SECONDS
        # Its output is read to the end first: a process that cannot write does not end.
        while self._open and time.monotonic() < deadline:
            self.read(deadline - time.monotonic())
        code = self._process.wait()
        self._open.clear()
        while self._held:
            os.close(self._held.pop())
        report = _numbers(self._status_text.decode())
        if "child-pid" in report:
            _wait_for_end(report["child-pid"], deadline)
            if code > 0:  # a command that could not be executed is told by bubblewrap's own exit code only
                report.setdefault("exit-code", code)
        return report


def _numbers(text: str) -> dict[str, int]:
    """The numbers in the status: JSON objects, one after another, the last perhaps cut off."""
    found: dict[str, int] = {}
    decoder = json.JSONDecoder()
    rest = text.lstrip()
    while rest:
        try:
            report, end = decoder.raw_decode(rest)
        except json.JSONDecodeError:
            break
        found.update({name: value for name, value in report.items() if isinstance(value, int)})
        rest = rest[end:].lstrip()
    return found


def _wait_for_end(first_inside: int, deadline: float) -> None:
    """Wait until the first process inside has ended: the kernel ends all others in its namespace before it."""
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{first_inside}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
        except OSError:
            return
        if state in "ZX":
            return
        time.sleep(0.002)
