"""A real PostgreSQL for tests."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import asyncpg
import pytest

from .found import LOOPBACK, POSTGRESQL, first, named, program
from .life import Foreign, Life, Processes, Server, free_port

IMAGE = "postgres:15-alpine"
SUPERUSER = "postgres"
READY_SECONDS, CONNECT_SECONDS = 60.0, 5.0
_DEBIAN = ("/usr/lib/postgresql/*/bin",)


class PostgresqlServer(Server):
    """A server, its superuser, and its processes."""

    def __init__(self, life: Life, *, host: str, port: int, user: str, password: str) -> None:
        super().__init__(life)
        self.host, self.port, self.user, self.password = host, port, user, password

    @property
    def url(self) -> str:
        """Without a database, as MEDPERF_TEST_POSTGRESQL names a server."""
        return f"postgresql://{quote(self.user)}:{quote(self.password, safe='')}@{self.host}:{self.port}"

    def url_of(self, database: str, *, user: str | None = None, password: str | None = None) -> str:
        """SQLAlchemy's URL of one of its databases."""
        who = f"{quote(user or self.user)}:{quote(password or self.password, safe='')}"
        return f"postgresql+asyncpg://{who}@{self.host}:{self.port}/{database}"

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            try:
                self.fetch("SELECT 1")
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                has_ended = isinstance(self._life, Processes) and not self._life.is_running()
                if has_ended or time.monotonic() > deadline:
                    where = f"{self.host}:{self.port}"
                    pytest.fail(f"PostgreSQL at {where} does not answer ({error!r}):\n{self.tail()}")
                time.sleep(0.05)
            else:
                return

    def fetch(self, sql: str, *arguments: Any, database: str = "postgres") -> list[asyncpg.Record]:
        """A statement by the superuser, outside of a transaction."""

        async def ask() -> list[asyncpg.Record]:
            connection = await asyncpg.connect(
                host=self.host,
                port=self.port,
                user=self.user,
                password=self.password,
                database=database,
                timeout=CONNECT_SECONDS,
            )
            try:
                return list(await connection.fetch(sql, *arguments))
            finally:
                await connection.close(timeout=CONNECT_SECONDS)

        with asyncio.Runner() as runner:
            return runner.run(ask())

    def create_database(self, name: str, *, template: str = "template1") -> str:
        """A new database; returns its name."""
        self.fetch(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return name

    def drop_database(self, name: str) -> None:
        """Whoever is connected to it is cut off."""
        self.fetch(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@contextmanager
def postgresql(*, fsync: bool = True, options: Mapping[str, str] | None = None) -> Iterator[PostgresqlServer]:
    """A server: the one that the environment names, else one of this test's own.

    `options` are the server's settings, such as max_connections; one that is named has its own.
    """
    with ExitStack() as stack:
        yield first(
            "PostgreSQL",
            POSTGRESQL,
            (
                _named,
                partial(_in_container, stack, fsync=fsync, options=options or {}),
                partial(_of_debian, stack, fsync=fsync, options=options or {}),
            ),
        )


def _named() -> PostgresqlServer:
    url = urlsplit(named(POSTGRESQL))
    server = PostgresqlServer(
        Foreign(POSTGRESQL),
        host=url.hostname or LOOPBACK,
        port=url.port or 5432,
        user=unquote(url.username or SUPERUSER),
        password=unquote(url.password or ""),
    )
    try:
        server.fetch("SELECT 1")
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        pytest.fail(f"{POSTGRESQL} names {server.host}:{server.port}, which does not let us in: {error!r}")
    return server


def _in_container(stack: ExitStack, *, fsync: bool, options: Mapping[str, str]) -> PostgresqlServer:
    from .container import Container  # docker's library is slow to import

    password = secrets.token_urlsafe(12)
    settings = " ".join(f"-c {name}={value}" for name, value in _settings(fsync, options).items())
    environment = {"POSTGRES_PASSWORD": password, "POSTGRES_INITDB_ARGS": "--locale=C.UTF-8"}
    life = Container(IMAGE, port=5432, environment=environment, command=f"postgres {settings}")
    life.start()
    stack.callback(life.remove)
    server = PostgresqlServer(life, host=LOOPBACK, port=life.port, user=SUPERUSER, password=password)
    server.wait_until_ready()
    return server


def _of_debian(stack: ExitStack, *, fsync: bool, options: Mapping[str, str]) -> PostgresqlServer:
    initdb = program("initdb", package="postgresql", folders=_DEBIAN)
    folder = Path(tempfile.mkdtemp(prefix="medperf-postgresql-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    password = secrets.token_urlsafe(12)
    (folder / "password").write_text(password)
    _give_away(folder)
    data = folder / "data"
    by_password = ["--auth-local=trust", "--auth-host=scram-sha-256", "--pwfile", folder / "password"]
    encoding = ["-E", "UTF8", "--locale=C.UTF-8"]
    made = subprocess.run(
        [*_as_postgres(), initdb, "-D", data, "-U", SUPERUSER, *by_password, *encoding, "--no-sync"],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.fail(f"initdb failed: {made.stderr}")
    return _serve(stack, folder, initdb.with_name("postgres"), password, _settings(fsync, options))


def _serve(
    stack: ExitStack, folder: Path, program_: Path, password: str, options: Mapping[str, str]
) -> PostgresqlServer:
    port, data = free_port(), folder / "data"
    settings = {"port": str(port), "listen_addresses": LOOPBACK, "unix_socket_directories": str(data), **options}
    argv = [str(program_), "-D", str(data)]
    for name, value in settings.items():
        argv += ["-c", f"{name}={value}"]
    life = Processes(argv, log=folder / "log", stop_by=signal.SIGINT, user=_as_postgres())
    stack.callback(life.kill)
    server = PostgresqlServer(life, host=LOOPBACK, port=port, user=SUPERUSER, password=password)
    server.start()
    return server


def back_up(server: PostgresqlServer, folder: Path) -> None:
    """All databases of a server at one moment, while it works, as the folder `data` in `folder`."""
    pg_basebackup = program("pg_basebackup", package="postgresql", folders=_DEBIAN)
    folder.mkdir()
    where = ["--host", server.host, "--port", str(server.port), "--username", server.user]
    taken = subprocess.run(
        [pg_basebackup, *where, "--pgdata", folder / "data", "--checkpoint=fast", "--wal-method=stream"],
        env={**os.environ, "PGPASSWORD": server.password},
        capture_output=True,
        text=True,
        check=False,
    )
    if taken.returncode:
        pytest.fail(f"pg_basebackup failed: {taken.stderr}")


@contextmanager
def restored(
    folder: Path, *, password: str, options: Mapping[str, str] | None = None
) -> Iterator[PostgresqlServer]:
    """Another server, of Debian's package, on what `back_up` made."""
    postgres = program("postgres", package="postgresql", folders=_DEBIAN)
    with ExitStack() as stack:
        # In a place of its own that the server's user can reach: a test's folder is its owner's alone.
        place = Path(tempfile.mkdtemp(prefix="medperf-postgresql-"))
        stack.callback(shutil.rmtree, place, ignore_errors=True)
        shutil.copytree(folder / "data", place / "data")
        if os.geteuid() == 0:
            for path in (place, *place.rglob("*")):
                shutil.chown(path, SUPERUSER, SUPERUSER)
        yield _serve(stack, place, postgres, password, _settings(False, options or {}))


def _settings(fsync: bool, options: Mapping[str, str]) -> dict[str, str]:
    return {"fsync": "on" if fsync else "off", **options}


def _as_postgres() -> list[str]:
    """PostgreSQL refuses to run as root."""
    clean = ["env", "-i", "PATH=/usr/bin:/bin", "LANG=C.UTF-8"]
    if os.geteuid() != 0:
        return clean
    return ["setpriv", "--reuid", SUPERUSER, "--regid", SUPERUSER, "--init-groups", *clean]


def _give_away(folder: Path) -> None:
    if os.geteuid() != 0:
        return
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, SUPERUSER, SUPERUSER)
