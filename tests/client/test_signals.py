"""A command that is told to end, or whose terminal closes, stops the container that it runs in an engine."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest

from containers.attack import eventually
from containers.door import Door
from containers.small import manifest_of, sandbox_only, write_cases, write_container
from medperf import safe_yaml
from medperf.engines.docker_connection import FIRST_ANSWER_SECONDS
from medperf.engines.docker_options import HOME_LABEL
from medperf.home import Home
from medperf.journal import Journal, RunState
from medperf.left_over import end_left_over
from medperf.manifest import Role

MEDPERF = str(Path(sys.executable).with_name("medperf"))
NOBODY = "http://127.0.0.1:9"
IMAGE = "medperf-test/hangs:1"
HANGS = "python3 -c __import__('time').sleep(600)"


@pytest.fixture
def daemon(base_image: str) -> Iterator[docker.DockerClient]:
    with closing(docker.from_env()) as client:
        client.images.get(f"sha256:{base_image}").tag(IMAGE)
        yield client


@pytest.fixture
def trial(home_folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command whose first task hangs under Docker."""
    monkeypatch.setenv("MEDPERF_SERVER", NOBODY)
    here = Path.cwd()
    write_cases(here / "cases")
    words = [MEDPERF, "test", "run", "--platform", "docker", "--yes"]
    for role in Role:
        manifest = manifest_of(role)
        del manifest["sandbox"]
        manifest["docker"] = {"image": IMAGE}
        for task in manifest["tasks"].values():
            task["entrypoint"] = HANGS
        folder = write_container(here / role, role)
        (folder / "mlcube.yaml").write_text(safe_yaml.dump(manifest))
        words += ["--container", str(folder)]
    return [*words, "--data_path", str(here / "cases/images"), "--labels_path", str(here / "cases/labels")]


@pytest.mark.guarantee("told to end")
@pytest.mark.parametrize("how", ["SIGTERM", "SIGHUP", "the terminal closes"])
def test_a_command_that_is_told_to_end_stops_its_container(
    daemon: docker.DockerClient, trial: list[str], how: str
) -> None:
    home = Home.at(NOBODY)

    def containers() -> list[object]:
        found: list[object] = daemon.containers.list(
            all=True, filters={"label": f"{HOME_LABEL}={home.root}", "status": "running"}
        )
        return found

    near, far = pty.openpty()
    is_closed = False
    # A session of its own with the terminal as its own, as a shell's job has it.
    command = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *trial], stdin=far, stdout=far, stderr=far, start_new_session=True
    )
    os.close(far)
    try:
        assert eventually(lambda: bool(containers()), seconds=60)
        [run] = Journal(home.journal).runs()
        if how == "the terminal closes":
            os.close(near)
            is_closed = True
        else:
            os.kill(run.client.pid, signal.Signals[how])
        exit_code = command.wait(timeout=60)
    finally:
        if command.poll() is None:
            command.kill()
            command.wait()
        if not is_closed:
            os.close(near)
    assert exit_code == 130
    assert daemon.containers.list(all=True, filters={"label": f"{HOME_LABEL}={home.root}"}) == []
    assert Journal(home.journal).find(run.id).state is RunState.CANCELLED


def test_ctrl_c_while_the_engine_hangs_ends_soon_and_says_what_may_still_run(
    daemon: docker.DockerClient, trial: list[str], tmp_path: Path
) -> None:
    home = Home.at(NOBODY)
    of_this_test = {"label": f"{HOME_LABEL}={home.root}"}
    path = tmp_path / "engine.sock"
    door = Door(path)
    command = subprocess.Popen(
        trial,
        env={**os.environ, "DOCKER_HOST": f"unix://{path}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert eventually(
            lambda: (
                any(run.state is RunState.RUNNING for run in Journal(home.journal).runs())
                and bool(daemon.containers.list(filters=of_this_test))
            ),
            seconds=60,
        )
        time.sleep(1)  # it waits for the container's output by then
        door.freeze()
        began = time.monotonic()
        command.send_signal(signal.SIGINT)
        said = command.communicate(timeout=60)[0]
        seconds = time.monotonic() - began
    finally:
        if command.poll() is None:
            command.kill()
            command.communicate()
        door.shut()
    assert command.returncode == 130, said
    assert "does not answer: the container may still run" in said
    assert seconds < 2 * FIRST_ANSWER_SECONDS
    assert len(daemon.containers.list(filters=of_this_test)) == 1
    lines: list[str] = []
    with closing(sandbox_only(home)) as engines:
        end_left_over(home, Journal(home.journal), engines, say=lines.append)
    assert lines == ["A container that docker still had of an earlier command is removed."]
    assert daemon.containers.list(all=True, filters=of_this_test) == []
