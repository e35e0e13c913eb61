"""A full disk at every write of the server: real files on a small disk of the test's own."""

from __future__ import annotations

import errno
import json
import os
import signal
import sqlite3
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import event, insert

from medperf_contracts.events import DatasetRegistered
from medperf_contracts.versions import IDEMPOTENCY_HEADER
from service import facts
from service.peer import Peer, envelope_of
from service.served import Server, Start, refused, run, servers
from services.kernel.inbox import Consumer, Inbox
from services.kernel.service import Definition
from services.kernel.tables import idempotency_key
from services.results.app import DEFINITION

PASSWORD = "sesame-sesame"
DISK_BYTES = 24 * 1024 * 1024
SERVICES = ("accounts", "registry", "associations", "results", "notifications")
DELIVERED_SECONDS = 60  # a lease that could not be given back runs out after 30


@dataclass(frozen=True)
class Disk:
    """A small disk: all of it can be taken."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "server"

    def fill(self, *, but_kib: int = 0) -> None:
        """Take all space but so much."""
        with (self.folder / "filler").open("ab", buffering=0) as filler:
            for size in (1024 * 1024, 4096, 1):
                try:
                    while filler.write(bytes(size)):
                        pass
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
            filler.truncate(filler.tell() // 4096 * 4096 - but_kib * 1024)

    def free(self) -> None:
        (self.folder / "filler").unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    assert os.geteuid() == 0, "only root can mount the small disk that this test fills"
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)], check=True)
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def start_on(disk: Disk) -> Iterator[Start]:
    """Start a server on the small disk; none is left at the end of the test."""
    with servers(disk.home) as begin:
        yield begin


class Owner:
    """A person who registers containers of a hundred kilobytes each."""

    def __init__(self, server: Server) -> None:
        self._url = server.url
        server.post_as_operator("users", {"username": "ada", "password": PASSWORD})
        self._token = self.log_in().json()["access_token"]

    def log_in(self) -> httpx.Response:
        body = {"username": "ada", "password": PASSWORD}
        return httpx.post(f"{self._url}/api/v1/auth/login", json=body, trust_env=False, timeout=30)

    def register(self, name: str, key: str | None = None) -> httpx.Response:
        body = {"name": name, "manifest": f"name: {name} # {'x' * 100_000}"}
        headers = {"Authorization": f"Bearer {self._token}", IDEMPOTENCY_HEADER: key or str(uuid.uuid4())}
        return httpx.post(
            f"{self._url}/api/v1/containers", json=body, headers=headers, trust_env=False, timeout=30
        )

    def names(self) -> set[str]:
        headers = {"Authorization": f"Bearer {self._token}"}
        page = httpx.get(f"{self._url}/api/v1/containers?limit=200", headers=headers, trust_env=False, timeout=30)
        return {item["name"] for item in page.raise_for_status().json()["items"]}


def rows(home: Path, service: str, query: str) -> list[Any]:
    database = sqlite3.connect(f"file:{home / service}.db?mode=ro", uri=True)
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


def test_what_cannot_be_kept_is_refused_for_a_time_and_what_was_acknowledged_stays(
    disk: Disk, start_on: Start
) -> None:
    server = start_on()
    owner = Owner(server)
    disk.fill(but_kib=600)
    acknowledged: set[str] = set()
    key = str(uuid.uuid4())
    while (answer := owner.register(name := f"c{len(acknowledged)}", key)).status_code == 201:
        acknowledged.add(name)
        key = str(uuid.uuid4())
    disk.fill()
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_full")
    assert answer.headers["Retry-After"] == "5"
    assert "operator" in answer.json()["hint"]
    assert owner.names() == acknowledged, "reads go on, and nothing that was refused is there"
    codes = {owner.register(f"more{number}").json()["code"] for number in range(5)}
    assert codes == {"storage_full"}

    disk.free()
    assert owner.register(name, key).status_code == 201, "the same request with the same key"
    assert owner.register(name, key).status_code == 201
    acknowledged.add(name)
    assert owner.names() == acknowledged
    assert owner.log_in().status_code == 200
    ends = time.monotonic() + DELIVERED_SECONDS
    while rows(disk.home, "registry", "SELECT * FROM outbox WHERE sent_millis IS NULL"):
        assert time.monotonic() < ends, "what waited is delivered"
        time.sleep(0.2)
    assert rows(disk.home, "results", "SELECT count(*) FROM container_copies") == [(len(acknowledged),)]
    for service in SERVICES:
        assert rows(disk.home, service, "SELECT * FROM inbox_message") == []
    server.stop(signal.SIGTERM)
    for line in (disk.home / "server.log").read_text().splitlines():
        json.loads(line)


def test_a_server_that_was_killed_on_a_full_disk_has_everything_once_there_is_space(
    disk: Disk, start_on: Start
) -> None:
    server = start_on()
    owner = Owner(server)
    disk.fill(but_kib=600)
    acknowledged = 0
    while owner.register(f"c{acknowledged}").status_code == 201:
        acknowledged += 1
    disk.fill()
    server.stop(signal.SIGKILL)
    disk.free()
    start_on()
    assert len(rows(disk.home, "registry", "SELECT id FROM containers")) == acknowledged


# An empty disk; room for the lock; the log; the key and the token; a database; three; nearly all.
@pytest.mark.parametrize("but_kib", [0, 4, 12, 32, 180, 420])
def test_a_server_does_not_start_on_a_full_disk_and_does_once_there_is_space(
    disk: Disk, start_on: Start, but_kib: int
) -> None:
    disk.fill(but_kib=but_kib)
    said = refused(disk.home, "up", "--port", "0")
    assert "No space left on device" in said or "disk of the" in said, said
    assert "ake space" in said
    disk.free()
    server = start_on()
    Owner(server)
    server.stop(signal.SIGTERM)
    assert [path.name for path in disk.home.iterdir() if path.name.startswith("signing_key.json.")] == []


@pytest.mark.parametrize("but_kib", [0, 8, 60])
def test_an_account_is_not_half_made_on_a_full_disk(disk: Disk, but_kib: int) -> None:
    disk.fill(but_kib=but_kib)
    said = refused(disk.home, "user", "add", "ada", "--password-stdin", typed=f"{PASSWORD}\n")
    assert "ake space" in said
    disk.free()
    made = run(disk.home, "user", "add", "ada", "--password-stdin", typed=f"{PASSWORD}\n")
    assert (made.returncode, made.stdout) == (0, "Added user ada (ID 1).\n"), made


# At its first file; among the assets; among what is registered.
@pytest.mark.parametrize("but_kib", [0, 150, 500])
def test_seeding_that_met_a_full_disk_goes_on_with_the_same_command(
    disk: Disk, start_on: Start, but_kib: int
) -> None:
    server = start_on()
    disk.fill(but_kib=but_kib)
    said = refused(disk.home, "seed", "--demo", "data")
    assert "No space left on device" in said or "disk of the" in said, said
    disk.free()
    done = run(disk.home, "seed", "--demo", "data")
    assert done.returncode == 0, done
    (benchmark,) = rows(disk.home, "registry", "SELECT state, approval FROM benchmarks")
    assert benchmark == ("OPERATION", "APPROVED")
    assert rows(disk.home, "accounts", "SELECT count(*) FROM users") == [(4,)]
    assert not (disk.home / "seeding").exists()
    assert "reset" in refused(disk.home, "seed", "--demo", "data")
    server.stop(signal.SIGTERM)


def test_a_log_that_cannot_be_written_breaks_no_request_and_says_how_much_is_lost(
    disk: Disk, tmp_path: Path
) -> None:
    log = disk.folder / "server.log"
    with servers(tmp_path / "elsewhere") as start:
        server = start("--log", str(log))
        owner = Owner(server)
        disk.fill()
        for number in range(60):
            assert owner.register(f"c{number}").status_code == 201
        disk.free()
        assert owner.register("last").status_code == 201
        server.stop(signal.SIGTERM)
        assert str(server.terminal.before).count("cannot be written") == 1
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line for line in lines if "lines could not be written" in line["event"]]
    assert lines[-1]["event"] != lines[0]["event"]


# --- an attempt that was none


@pytest.fixture
def peer(start: Callable[[Definition], Peer]) -> Peer:
    return start(DEFINITION)


@pytest.mark.only_on(
    "sqlite", because="a file of a few pages is quickly full; PostgreSQL's is in test_postgresql.py"
)
def test_a_message_that_found_its_own_database_full_was_not_tried(peer: Peer) -> None:
    """Room for a row that says why, but not for the effect: only the rule keeps it from being counted."""
    room = [8]

    def limit(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA page_count")
        pages = cursor.fetchone()[0]
        cursor.execute(f"PRAGMA max_page_count = {pages + room[0]}")
        cursor.close()

    engine = peer.service.database.engine
    event.listen(engine.sync_engine, "connect", limit)
    peer.run(engine.dispose())

    async def have_large_effect(session: Any, said: DatasetRegistered, _: object) -> None:
        await session.execute(
            insert(idempotency_key).values(
                user_id=1, route="r", key=str(said.id), body_hash="x", answer="x" * 200_000, created_millis=1
            )
        )

    consumer = Consumer("results.large", [DatasetRegistered], have_large_effect)
    inbox = Inbox(peer.service.database, [consumer])
    peer.bus.bind(inbox.queues())
    envelope = envelope_of(facts.dataset())

    assert peer.run(peer.bus.publish([envelope])) == set(), "its publisher keeps it"
    assert peer.parked() == []
    room[0] = 1000
    peer.run(engine.dispose())
    assert peer.run(peer.bus.publish([envelope])) == {envelope.id}
    assert peer.parked() == []
