"""A store's whole content goes into one file and comes out of it elsewhere as it was, or not at all."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import JSON, BigInteger, Boolean, Column, MetaData, String, Table, Text, Uuid, insert, select

from medperf_contracts.values import State
from service.conftest import MakeEverything
from service.everything import Everything
from services.composition import DEFINITIONS, definition_of
from services.kernel.clock import BigId, Instant
from services.kernel.db import Choice
from services.operations import archive, rows, transfer
from services.operations.verify import verify
from services.operator_error import OperatorError
from services.registry.tables import containers

ZOO = Table(
    "zoo",
    MetaData(),
    Column("id", BigId, primary_key=True, autoincrement=True),
    Column("big", BigInteger),
    Column("flag", Boolean),
    Column("short", String(64)),
    Column("text", Text),
    Column("moment", Instant),
    Column("state", Choice(State)),
    Column("uuid", Uuid),
    Column("json", JSON, nullable=False),
)
# PostgreSQL keeps no NUL; UTF-8 has no lone surrogates. The API lets neither in.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
BIG = st.integers(-(2**63), 2**63 - 1)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
MOMENTS = st.integers(-(2**45), 2**45).map(
    lambda millis: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=millis)
)
ROWS = st.fixed_dictionaries(
    {
        "id": st.integers(1, 2**62),
        "big": st.none() | BIG,
        "flag": st.none() | st.booleans(),
        "short": st.none() | TEXT,
        "text": st.none() | TEXT,
        "moment": st.none() | MOMENTS,
        "state": st.none() | st.sampled_from(State),
        "uuid": st.none() | st.uuids(),
        "json": JSON_VALUES,
    }
)


@given(ROWS)
def test_a_row_is_the_same_after_its_line(row: dict[str, object]) -> None:
    line = rows.to_line(ZOO, row)
    assert line.count(b"\n") == 1
    assert rows.from_line(ZOO, line) == row
    assert line.isascii()


def test_rows_are_the_same_after_a_database(everything: Everything) -> None:
    """What hypothesis finds, in one table: a database a row would take minutes."""
    found: list[dict[str, object]] = []

    @given(ROWS)
    def collect(row: dict[str, object]) -> None:
        found.append(row)

    collect()
    kept = {int(str(row["id"])): row for row in found}

    async def go() -> list[bytes]:
        database = everything.databases["results"]
        async with database.engine.begin() as connection:
            await connection.run_sync(ZOO.create)
        async with database.write() as session:
            await session.execute(insert(ZOO), list(kept.values()))
        async with database.read() as session:
            return [line async for line in rows.lines(session, ZOO)]

    assert [rows.from_line(ZOO, line) for line in everything.run(go())] == [kept[key] for key in sorted(kept)]


def test_every_column_of_every_service_can_be_carried() -> None:
    values = {Instant: datetime(2026, 1, 1, tzinfo=UTC), Uuid: UUID(int=1), Boolean: True, JSON: {"a": 1}}
    for definition in DEFINITIONS:
        for table in transfer.tables_of(definition):
            row = {
                column.name: next(iter(column.type.members))
                if isinstance(column.type, Choice)
                else values.get(type(column.type), 1)
                for column in table.columns
            }
            assert rows.from_line(table, rows.to_line(table, row)) == row
            # SQL's NULL and JSON's null would be one.
            assert not any(column.nullable for column in table.columns if isinstance(column.type, JSON))


def test_everything_is_as_it_was_and_agrees(make_everything: MakeEverything, exported: Path) -> None:
    everything = make_everything()
    assert everything.fill(exported) == [definition.name for definition in DEFINITIONS]
    with archive.opened(exported) as brought:
        assert brought.manifest.rows > 50
        found = everything.run(transfer.check_importable(everything.databases, DEFINITIONS, brought))
    assert set(found.values()) == {transfer.Found.THE_SAME}
    assert everything.run(verify(everything.databases, DEFINITIONS, settle_seconds=0)).agrees


def test_numbering_goes_on_after_the_highest_id(everything: Everything) -> None:
    async def go() -> tuple[int, int]:
        async with everything.databases["registry"].write() as session:
            highest = (
                (await session.execute(select(containers).order_by(containers.c.id.desc()))).mappings().first()
            )
            assert highest is not None
            another = {**highest, "owner_id": 999}
            del another["id"]
            made = (await session.execute(insert(containers).values(another))).inserted_primary_key
            assert made is not None
            return int(highest["id"]), int(made[0])

    highest, made = everything.run(go())
    assert made == highest + 1


def test_the_same_import_again_changes_nothing_and_goes_on_where_it_was_cut_off(
    make_everything: MakeEverything, exported: Path
) -> None:
    everything = make_everything()
    with archive.opened(exported) as brought:
        for name in ("accounts", "registry"):
            everything.run(transfer._fill(everything.databases[name], definition_of(name), brought))
    assert everything.fill(exported) == ["associations", "results", "notifications"]
    assert everything.fill(exported) == []


def test_a_database_with_content_is_never_filled(make_everything: MakeEverything, exported: Path) -> None:
    everything = make_everything()
    everything.execute("notifications", "INSERT INTO inbox_claim VALUES ('a', 'b', 1)")
    with pytest.raises(OperatorError, match="There is content already: notifications"):
        everything.fill(exported)
    assert everything.rows("registry", containers) == []
    with archive.opened(exported) as brought, pytest.raises(OperatorError, match="came into the database"):
        everything.run(
            transfer._fill(everything.databases["notifications"], definition_of("notifications"), brought)
        )


def test_another_schema_is_refused_and_says_what_to_do(make_everything: MakeEverything, exported: Path) -> None:
    everything = make_everything()
    older = rewritten(exported, lambda manifest: manifest["services"]["results"].update(revision="0001"))
    with pytest.raises(OperatorError, match=r"schema of results is 0001 .* Nothing was changed") as refusal:
        everything.fill(older)
    assert "medperf-server export FILE" in refusal.value.hint
    everything.execute("results", "UPDATE alembic_version SET version_num = '0001'")
    with pytest.raises(OperatorError, match="results") as refusal:
        everything.fill(exported)
    assert refusal.value.hint == "medperf-server migrate"


def test_a_database_is_filled_whole_or_not_at_all(make_everything: MakeEverything, exported: Path) -> None:
    everything = make_everything()
    name = archive.table_name("registry", "datasets")
    with archive.opened(exported) as brought, brought.file(name) as content:
        line = json.loads(content.read().splitlines()[0])
    for broken, why in (({**line, "preparation_id": None}, r"(?i)null"), ({"a": 1}, "was left empty")):
        spoilt = rewritten(exported, contents={name: json.dumps(broken).encode() + b"\n"})
        with pytest.raises(Exception, match=why):
            everything.fill(spoilt)
        assert everything.rows("registry", containers) == []
    assert everything.fill(exported)[0] == "registry", "accounts was filled before"


def rewritten(
    file: Path,
    change: Callable[[dict[str, dict[str, dict[str, object]]]], object] = lambda manifest: None,
    *,
    contents: dict[str, bytes] | None = None,
    more: list[tarfile.TarInfo] | None = None,
    without: str = "",
    is_described: bool = True,
) -> Path:
    """An archive with another manifest, other contents, or more."""
    import hashlib

    other = file.with_name(f"other-{len(list(file.parent.iterdir()))}.tar")
    with tarfile.open(file) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    manifest = json.loads(members.pop(archive.MANIFEST))
    for name, content in (contents or {}).items():
        members[name] = content
        _, service, table = name.removesuffix(".jsonl").split("/")
        if is_described:
            manifest["services"][service]["tables"][table] |= {
                "size": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
    change(manifest)
    members.pop(without, None)
    with tarfile.open(other, "w") as tar:
        for name, content in {archive.MANIFEST: json.dumps(manifest).encode(), **members}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        for entry in more or []:
            tar.addfile(entry)
    return other


def link() -> tarfile.TarInfo:
    entry = tarfile.TarInfo("assets/link")
    entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return entry


CLAIMS = archive.table_name("results", "inbox_claim")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda file: rewritten(file, without=CLAIMS), "is missing"),
        (lambda file: rewritten(file, contents={CLAIMS: b"{}\n"}, is_described=False), "not as long"),
        (lambda file: rewritten(file, more=[link()]), "does not name as a file"),
        (lambda file: rewritten(file, more=[tarfile.TarInfo("../out")]), "does not name as a file"),
        (lambda file: rewritten(file, more=[tarfile.TarInfo(CLAIMS)]), "or twice"),
        (lambda file: rewritten(file, lambda manifest: manifest.update(format=2)), "format 2"),
        (lambda file: rewritten(file, lambda manifest: manifest["assets"].update({"../x": {}})), "cannot be read"),
        (lambda file: rewritten(file, lambda manifest: manifest["services"].pop("results")), "results"),
    ],
)
def test_an_archive_that_is_not_as_it_was_made_changes_nothing(
    make_everything: MakeEverything, exported: Path, spoil: Callable[[Path], Path], why: str
) -> None:
    everything = make_everything()
    with pytest.raises(OperatorError, match=why) as refusal:
        everything.fill(spoil(exported))
    assert "othing was changed" in str(refusal.value)
    assert everything.rows("registry", containers) == []


def test_a_flipped_byte_is_found(exported: Path, tmp_path: Path) -> None:
    content = bytearray(exported.read_bytes())
    content[content.index(b"container 1")] ^= 1
    spoilt = tmp_path / "spoilt.tar"
    spoilt.write_bytes(content)
    with pytest.raises(OperatorError, match="is not what it was"), archive.opened(spoilt):
        pass
    spoilt.write_bytes(exported.read_bytes()[:5000])
    with pytest.raises(OperatorError, match="no whole archive"), archive.opened(spoilt):
        pass


def test_assets_are_put_where_they_are_given_out_and_none_is_replaced(exported: Path, tmp_path: Path) -> None:
    with archive.opened(exported) as brought:
        assert transfer.import_assets(brought, tmp_path) == 1
        assert (tmp_path / "demo.tar.gz").read_bytes() == b"demo data"
        assert transfer.import_assets(brought, tmp_path) == 0
        (tmp_path / "demo.tar.gz").write_bytes(b"others'")
        with pytest.raises(OperatorError, match="with another content"):
            transfer.import_assets(brought, tmp_path)
    assert (tmp_path / "demo.tar.gz").read_bytes() == b"others'"


def test_an_export_replaces_no_file_and_carries_no_link(everything: Everything, tmp_path: Path) -> None:
    file, assets = tmp_path / "store.tar", tmp_path / "assets"
    assets.mkdir()
    file.write_text("mine")
    export = lambda: everything.run(  # noqa: E731
        transfer.export(everything.databases, DEFINITIONS, assets=assets, file=file)
    )
    with pytest.raises(OperatorError, match="is there already"):
        export()
    assert file.read_text() == "mine"
    file.unlink()
    (assets / "link").symlink_to("/etc/passwd")
    with pytest.raises(OperatorError, match="cannot be carried"):
        export()
    (assets / "link").unlink()
    export()
    assert file.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_a_demo_is_not_carried_elsewhere(everything: Everything, tmp_path: Path) -> None:
    everything.execute("accounts", "UPDATE store SET seeded_with = 'data'")
    file = tmp_path / "store.tar"
    with pytest.raises(OperatorError, match="seeded with the demo 'data'"):
        everything.run(transfer.export(everything.databases, DEFINITIONS, assets=tmp_path / "none", file=file))
    assert not file.exists()
