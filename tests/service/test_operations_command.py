"""`medperf-server events|verify|export|import` as an operator types them, on real servers."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import httpx
import pexpect
import pytest

from service.served import (
    ADA,
    COMMAND_SECONDS,
    PROGRAM,
    Server,
    Start,
    environment,
    refused,
    run,
    servers,
)

CONTAINER = {"name": "preparation", "description": "", "manifest": "name: preparation", "parameters": None}
MODELS = "associations.record_model"
WAIT_SECONDS = 20


def did(home: Path, *arguments: str) -> str:
    done = run(home, *arguments)
    assert done.returncode == 0, done
    return done.stdout


def log_in(server: Server) -> str:
    body = {"username": ADA["username"], "password": ADA["password"]}
    return str(server.post("auth/login", body, "nobody's").raise_for_status().json()["access_token"])


def register(server: Server) -> None:
    """A person and their container, of which every service has heard."""
    server.post_as_operator("users", ADA)
    server.post("containers", CONTAINER, log_in(server)).raise_for_status()
    deadline = time.monotonic() + WAIT_SECONDS
    while not damage(server.home, "SELECT id FROM model_copies"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def damage(home: Path, statement: str) -> list[object]:
    with closing(sqlite3.connect(home / "associations.db", timeout=10)) as database:
        rows: list[object] = database.execute(statement).fetchall()
        database.commit()
        return rows


@pytest.mark.parametrize("is_running", [True, False], ids=["running", "stopped"])
def test_a_copy_that_differs_is_found_and_rebuilt(home: Path, up: Start, is_running: bool) -> None:
    server = up()
    register(server)
    if not is_running:
        assert server.stop(signal.SIGTERM) == 0
    assert did(home, "verify").endswith("All services agree.\n")
    damage(home, "UPDATE model_copies SET name = 'other'")
    said = run(home, "verify")
    assert said.returncode == 1
    assert (
        f"{MODELS}: 1 things, 1 different\n    container/1 different: version 1, its owner said 1, name"
        in said.stdout
    )
    told = run(home, "verify", "--json")
    assert told.returncode == 1
    assert json.loads(told.stdout)["agrees"] is False
    assert "Add --yes." in refused(home, "events", "rebuild", "--consumer", MODELS)
    assert damage(home, "SELECT name FROM model_copies") == [("other",)]
    assert "1 things before, 1 now" in did(home, "events", "rebuild", "--consumer", MODELS, "--yes")
    assert did(home, "verify").endswith("All services agree.\n")
    assert "cannot be rebuilt" in refused(home, "events", "rebuild", "--consumer", "notifications.tell_of_result")


def test_there_must_be_a_store(home: Path) -> None:
    for command in (
        ("verify",),
        ("export", str(home.with_name("x.tar"))),
        ("events", "rebuild", "--consumer", MODELS),
    ):
        assert "There is no store in" in refused(home, *command)
    assert not home.exists()


def test_a_pilot_moves_to_another_server(home: Path, up: Start, tmp_path: Path) -> None:
    server = up()
    register(server)
    store_id = server.get_store_id()
    asset = tmp_path / "demo.tar.gz"
    asset.write_bytes(b"demo")
    url = did(home, "asset", "add", str(asset)).split()[1]
    file = tmp_path / "store.tar"
    assert "is in use by process" in refused(home, "export", str(file))
    assert not file.exists()
    assert server.stop(signal.SIGTERM) == 0
    assert "1 asset files" in did(home, "export", str(file))
    assert "is there already" in refused(home, "export", str(file))

    other = tmp_path / "other"
    assert "Add --yes." in refused(other, "import", str(file))
    said = did(other, "import", str(file), "--yes")
    assert "Imported: accounts, registry, associations, results." in said, "nobody was notified of anything"
    assert "nothing, it was all there already" in did(other, "import", str(file), "--yes")
    assert did(other, "verify").endswith("All services agree.\n")
    with servers(other) as begin:
        moved = begin()
        assert moved.get_store_id() == store_id
        token = log_in(moved)
        answer = httpx.get(
            f"{moved.url}/api/v1/containers/1", headers={"Authorization": f"Bearer {token}"}, trust_env=False
        )
        assert answer.json()["name"] == CONTAINER["name"]
        assert httpx.get(f"{moved.url}{url}", trust_env=False).content == b"demo"
        made = moved.post("containers", CONTAINER | {"name": "next", "manifest": "name: next"}, token).json()
        assert made["id"] == 2
        assert "is in use by process" in refused(other, "import", str(file), "--yes")
        assert moved.stop(signal.SIGTERM) == 0
    assert "There is content already" in refused(other, "import", str(file), "--yes")


def test_a_demo_is_not_exported(home: Path, up: Start, tmp_path: Path) -> None:
    server = up()
    server.post_as_operator("server/seeding", {"demo": "data"})
    assert server.stop(signal.SIGTERM) == 0
    assert "seeded with the demo 'data'" in refused(home, "export", str(tmp_path / "store.tar"))


def test_a_rebuild_asks_at_a_terminal(home: Path, up: Start) -> None:
    register(up())
    command = pexpect.spawn(
        sys.executable,
        [*PROGRAM, "events", "rebuild", "--consumer", MODELS],
        env=environment(home),
        encoding="utf-8",
        timeout=COMMAND_SECONDS,
    )
    command.expect(r"This replaces what associations knows by .* \(1 things\).*Do it\? \[y/N\]: ")
    command.sendline("n")
    command.expect("Aborted")
    command.close()


def test_a_deployment_is_not_exported(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, *PROGRAM, "export", str(tmp_path / "store.tar")],
        env={**environment(tmp_path), "MEDPERF_DATABASE_SERVER": "postgresql://nowhere"},
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    assert done.returncode == 1
    assert "this is about an embedded server's store" in done.stderr
