"""What every service test may ask for. Each that starts a service runs on SQLite and on PostgreSQL."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from servers.postgresql import PostgresqlServer
from service.databases import Databases, databases_on
from service.everything import Everything, store_with_content, urls_in
from service.peer import Peer
from service.served import Start, servers
from services.composition import DEFINITIONS
from services.kernel.service import Definition
from services.operations import transfer

KINDS = ("sqlite", "postgresql")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that is about one kind of database says so, with its reason: `only_on("sqlite", because=…)`."""
    if "database_kind" not in metafunc.fixturenames:
        return
    mark = metafunc.definition.get_closest_marker("only_on")
    kinds = KINDS if mark is None else mark.args
    if mark is not None and not (mark.kwargs["because"] and set(kinds) <= set(KINDS)):
        pytest.fail(f"{metafunc.definition.nodeid}: only_on names {KINDS} and says why")
    metafunc.parametrize("database_kind", kinds)


@pytest.fixture(scope="session")
def databases(postgresql_server: PostgresqlServer) -> Iterator[Databases]:
    """Databases on this process's PostgreSQL."""
    with databases_on(postgresql_server) as made:
        yield made


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where an embedded server's store is, or will be."""
    return tmp_path / "server"


@pytest.fixture
def up(home: Path) -> Iterator[Start]:
    """Start an embedded server on the store; none is left at the end of the test."""
    with servers(home) as begin:
        yield begin


@pytest.fixture
def empty_database(database_kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """The URL of a database with nothing in it."""
    if database_kind == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'empty'}.db"
    databases: Databases = request.getfixturevalue("databases")
    return databases.empty()


@pytest.fixture
def start(
    database_kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[[Definition], Peer]]:
    """Start a service; it is closed at the end of the test. Started again, it has the same database."""
    peers: list[Peer] = []
    urls: dict[str, str] = {}

    def url_of(service: str) -> str:
        if database_kind == "sqlite":
            return f"sqlite+aiosqlite:///{tmp_path / service}.db"
        databases: Databases = request.getfixturevalue("databases")
        return databases.migrated(service)

    def begin(definition: Definition) -> Peer:
        if definition.name not in urls:
            urls[definition.name] = url_of(definition.name)
        peers.append(Peer(definition, tmp_path, urls[definition.name]))
        return peers[-1]

    yield begin
    for peer in peers:
        peer.close()


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of a store in which people did what people do."""
    folder = tmp_path_factory.mktemp("exported")
    file = folder / "store.tar"
    with store_with_content(folder) as whole:
        databases = {name: service.database for name, service in whole.services.items()}
        whole.run(transfer.export(databases, DEFINITIONS, assets=folder / "assets", file=file))
    return file


MakeEverything = Callable[..., Everything]


@dataclass(frozen=True)
class Templates:
    """Databases of one kind to be copied: new ones, and the same with the archive's content."""

    copy: Callable[[bool, Path, ExitStack], dict[str, str]]


@pytest.fixture(scope="session")
def sqlite_templates(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Templates:
    folders = {is_filled: tmp_path_factory.mktemp("template") for is_filled in (False, True)}
    for is_filled, folder in folders.items():
        make_template(urls_in(folder), exported if is_filled else None)

    def copy(is_filled: bool, folder: Path, stack: ExitStack) -> dict[str, str]:
        shutil.copytree(folders[is_filled], folder)
        return urls_in(folder)

    return Templates(copy)


@pytest.fixture(scope="session")
def postgresql_templates(exported: Path, postgresql_server: PostgresqlServer) -> Templates:
    names = {
        is_filled: {definition.name: f"template-{uuid.uuid4().hex[:12]}" for definition in DEFINITIONS}
        for is_filled in (False, True)
    }
    for is_filled, of_services in names.items():
        for name in of_services.values():
            postgresql_server.create_database(name)
        urls = {service: postgresql_server.url_of(name) for service, name in of_services.items()}
        make_template(urls, exported if is_filled else None)

    def copy(is_filled: bool, folder: Path, stack: ExitStack) -> dict[str, str]:
        urls = {}
        for service, template in names[is_filled].items():
            name = postgresql_server.create_database(f"test-{uuid.uuid4().hex[:12]}", template=template)
            stack.callback(postgresql_server.drop_database, name)
            urls[service] = postgresql_server.url_of(name)
        return urls

    return Templates(copy)


def make_template(urls: dict[str, str], content: Path | None) -> None:
    everything = Everything(urls)
    everything.migrate()
    if content is not None:
        everything.fill(content)
    everything.close()


MakeEverything = Callable[..., Everything]


@pytest.fixture(params=["sqlite", "postgresql"])
def make_everything(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeEverything]:
    """Make all services' databases, of one kind, new or with content; they are removed at the end of the test."""
    templates: Templates = request.getfixturevalue(f"{request.param}_templates")
    with ExitStack() as stack:

        def make(*, is_filled: bool = False) -> Everything:
            folder = tmp_path / f"databases-{uuid.uuid4().hex[:6]}"
            made = Everything(templates.copy(is_filled, folder, stack))
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def everything(make_everything: MakeEverything) -> Everything:
    """All services' databases with content."""
    return make_everything(is_filled=True)
