"""A person's account on a real server, by the commands of the operator and of the person."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tutorials.path import EmbeddedServer, Site, Step, StepFailed

OLD, NEW = "sesame-sesame", "another-sesame"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A running server that nobody has an account on, and that was not seeded."""
    server = EmbeddedServer(tmp_path / "server")
    server.start()
    yield server
    server.stop()


def site(server: EmbeddedServer, folder: Path) -> Site:
    folder.mkdir()
    return Site(folder, server.url, lambda _: None)


def log_in(password: str, *, exit_code: int = 0) -> Step:
    return Step("", f"echo '{password}' | medperf login --username ada --password_stdin", exit_code=exit_code)


def operate(server: EmbeddedServer, *arguments: str, typed: str = "") -> None:
    done = subprocess.run(
        [*server._program(), "user", *arguments],
        env=server._environment(),
        input=typed,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done


def test_a_person_changes_their_password_and_their_other_machine_must_log_in_again(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    operate(server, "add", "ada", "--password-stdin", typed=f"{OLD}\n")
    here, there = site(server, tmp_path / "here"), site(server, tmp_path / "there")
    for machine in (here, there):
        machine.walk(log_in(OLD))
    screen = here.walk(
        Step(
            "",
            "medperf auth change-password",
            (
                (r"Old password of ada: ", OLD),
                (r"New password \(at least 8 characters\): ", NEW),
                (r"The same again: ", "mistyped"),
                (r"New password \(at least 8 characters\): ", NEW),
                (r"The same again: ", NEW),
            ),
            (r"Changed the password of ada on http.*No other login of yours is renewed; .* up to 16 minutes\.",),
        )
    )
    assert OLD not in screen
    assert NEW not in screen
    for machine, exit_code in ((here, 0), (there, 4)):
        for file in machine.folder.rglob("credentials.json"):
            expire(file)
        machine.walk(Step("", "medperf auth status </dev/null", exit_code=exit_code))
    there.walk(log_in(OLD, exit_code=6))
    there.walk(log_in(NEW))


def test_a_password_that_is_refused_is_not_changed(server: EmbeddedServer, tmp_path: Path) -> None:
    operate(server, "add", "ada", "--password-stdin", typed=f"{OLD}\n")
    here = site(server, tmp_path / "here")
    here.walk(log_in(OLD))
    change = "printf '%s\\n%s\\n' {} {} | medperf auth change-password --password_stdin"
    here.walk(Step("", change.format("wrong-wrong", NEW), shows=("The old password is wrong",), exit_code=6))
    here.walk(Step("", change.format(OLD, "seven77"), shows=("at least 8 characters",), exit_code=6))
    here.walk(Step("", change.format(OLD, OLD), shows=("The new password is the old one",), exit_code=6))
    with pytest.raises(StepFailed, match="no terminal"):
        here.walk(Step("", "medperf auth change-password </dev/null"))
    here.walk(log_in(OLD))


def expire(credentials: Path) -> None:
    """As if the access token's 15 minutes were over: the refresh token must prove the login."""
    kept = json.loads(credentials.read_text())
    credentials.write_text(json.dumps(kept | {"expires_at": 0}))
