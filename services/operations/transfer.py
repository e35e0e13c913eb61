"""A store's whole content carried elsewhere: every table of every service as it is, IDs kept, and the assets.

Logins stay valid, since their tokens' hashes are carried; the keys that sign access tokens are not, which last
minutes: the other server signs with its own.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import Table, delete, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from medperf_contracts import __version__
from services.accounts import tables as accounts
from services.kernel import migrate
from services.kernel.db import Database
from services.kernel.service import Definition
from services.kernel.tables import KERNEL
from services.operator_error import OperatorError

from . import archive, rows
from .archive import Archive, FilePart, Manifest, ServicePart, TablePart

_CHUNK_BYTES = 1024 * 1024


class Found(Enum):
    """What a service's database holds before an import."""

    NOTHING = "nothing"
    THE_SAME = "the same"
    """Imported before, from the same archive; or nothing, and there nothing is brought."""
    ANYTHING_ELSE = "anything else"


def tables_of(definition: Definition) -> list[Table]:
    """Every table of a service's database; what others refer to comes first."""
    return [*KERNEL.sorted_tables, *definition.metadata.sorted_tables]


async def export(
    databases: Mapping[str, Database], definitions: Sequence[Definition], *, assets: Path, file: Path
) -> Manifest:
    """Write everything into one file. Nothing else may have the store meanwhile."""
    await _check_not_seeded(databases["accounts"])
    with TemporaryDirectory(prefix=f".{file.name}.", dir=file.parent) as folder:
        contents: dict[str, Path] = {}
        services: dict[str, ServicePart] = {}
        for definition in definitions:
            database = databases[definition.name]
            parts: dict[str, TablePart] = {}
            for table in tables_of(definition):
                path = Path(folder) / f"{definition.name}.{table.name}"
                parts[table.name] = await _dump(database, table, path)
                contents[archive.table_name(definition.name, table.name)] = path
            revision = await migrate.revision_of(database)
            services[definition.name] = ServicePart(revision=revision or "", tables=parts)
        found = {name: _described(path) for name, path in _assets(assets).items()}
        contents |= {archive.asset_name(name): assets / name for name in found}
        manifest = Manifest(
            format=archive.FORMAT,
            made_by=__version__,
            made_at=datetime.now(UTC),
            services=services,
            assets=found,
        )
        archive.write(file, manifest, contents)
    return manifest


async def check_importable(
    databases: Mapping[str, Database], definitions: Sequence[Definition], brought: Archive
) -> dict[str, Found]:
    """What each service's database holds; `OperatorError` where the archive does not fit or would meet content."""
    await _check_schemas(databases, definitions, brought.manifest)
    found = {
        definition.name: await _found(databases[definition.name], definition, brought)
        for definition in definitions
    }
    taken = [name for name, what in found.items() if what is Found.ANYTHING_ELSE]
    if taken:
        raise OperatorError(
            f"There is content already: {', '.join(taken)}. Nothing was changed.",
            hint="Import into a new store, before anything else is done with it, and while nothing runs on it.",
        )
    return found


async def import_databases(
    databases: Mapping[str, Database], definitions: Sequence[Definition], brought: Archive
) -> list[str]:
    """Fill each empty database, in one transaction each; returns which. Again, it goes on where it was cut off."""
    found = await check_importable(databases, definitions, brought)
    filled = []
    for definition in definitions:
        if found[definition.name] is Found.NOTHING:
            await _fill(databases[definition.name], definition, brought)
            filled.append(definition.name)
    return filled


def import_assets(brought: Archive, folder: Path) -> int:
    """Put the archive's assets where they are given out; returns how many were not there yet."""
    for name, part in brought.manifest.assets.items():
        if (folder / name).exists() and _described(folder / name) != part:
            raise OperatorError(
                f"{folder / name} is there already, with another content. Nothing was changed.",
                hint="Remove it, or name another folder for the assets.",
            )
    new = [name for name in brought.manifest.assets if not (folder / name).exists()]
    for name in new:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
        with brought.file(archive.asset_name(name)) as content, partial.open("wb") as copy:
            while chunk := content.read(_CHUNK_BYTES):
                copy.write(chunk)
            copy.flush()
            os.fsync(copy.fileno())
        partial.replace(target)
    return len(new)


async def _check_not_seeded(database: Database) -> None:
    async with database.read() as session:
        demo = (await session.execute(select(accounts.store.c.seeded_with))).scalar_one_or_none()
    if demo is not None:
        raise OperatorError(
            f"This store was seeded with the demo '{demo}', whose people have a known password; it is not carried "
            "elsewhere.",
            hint="Begin anew on the other server.",
        )


async def _dump(database: Database, table: Table, path: Path) -> TablePart:
    hasher, count, size = hashlib.sha256(), 0, 0
    with path.open("xb") as file:
        async with database.read() as session:
            async for line in rows.lines(session, table):
                file.write(line)
                hasher.update(line)
                count, size = count + 1, size + len(line)
    return TablePart(rows=count, size=size, sha256=hasher.hexdigest())


async def _check_schemas(
    databases: Mapping[str, Database], definitions: Sequence[Definition], manifest: Manifest
) -> None:
    names = {definition.name for definition in definitions}
    if manifest.services.keys() != names:
        raise archive.damaged("it does not hold these services: " + ", ".join(sorted(names)))
    for definition in definitions:
        brought = manifest.services[definition.name]
        missing = await migrate.what_is_missing(databases[definition.name])
        if missing is not None:
            raise OperatorError(f"The database of {definition.name}: {missing}.", hint="medperf-server migrate")
        here = await migrate.revision_of(databases[definition.name])
        if brought.revision != here:
            raise OperatorError(
                f"The archive's schema of {definition.name} is {brought.revision} (made by version "
                f"{manifest.made_by}), the one here is {here}. Nothing was changed.",
                hint=f"Export the store again with version {__version__}: medperf-server export FILE",
            )
        if brought.tables.keys() != {table.name for table in tables_of(definition)}:
            raise archive.damaged(f"it does not hold the tables of {definition.name}")


async def _found(database: Database, definition: Definition, brought: Archive) -> Found:
    async with database.read() as session:
        if await _is_as_brought(session, definition, brought.manifest):
            return Found.THE_SAME
        return Found.NOTHING if await _is_empty(session, definition) else Found.ANYTHING_ELSE


async def _is_empty(session: AsyncSession, definition: Definition) -> bool:
    for table in tables_of(definition):
        if table not in definition.first_rows and (await session.execute(select(table).limit(1))).first():
            return False
    return True


async def _is_as_brought(session: AsyncSession, definition: Definition, manifest: Manifest) -> bool:
    for table in tables_of(definition):
        hasher = hashlib.sha256()
        async for line in rows.lines(session, table):
            hasher.update(line)
        if hasher.hexdigest() != manifest.services[definition.name].tables[table.name].sha256:
            return False
    return True


async def _fill(database: Database, definition: Definition, brought: Archive) -> None:
    async with database.write(in_background=True) as session:
        if not await _is_empty(session, definition):
            raise OperatorError(
                f"Something came into the database of {definition.name} meanwhile; it was left as it is.",
                hint="Stop what runs on it, empty it, then import again.",
            )
        for table in definition.first_rows:
            await session.execute(delete(table))
        for table in tables_of(definition):
            await _insert(session, table, brought, definition.name)
        if not await _is_as_brought(session, definition, brought.manifest):
            raise OperatorError(
                f"The database of {definition.name} did not keep every value as it was; it was left empty.",
                hint="Look whether its encoding is UTF-8, then import again.",
            )


async def _insert(session: AsyncSession, table: Table, brought: Archive, service: str) -> None:
    with brought.file(archive.table_name(service, table.name)) as content:
        try:
            while batch := [rows.from_line(table, line) for line in islice(content, rows.ROWS_AT_ONCE)]:
                await session.execute(insert(table), batch)
        except ValueError as error:
            raise OperatorError(
                f"The archive has what is no row: {error}. The database of {service} was left empty.",
                hint="Export the store again: medperf-server export FILE",
            ) from None
    column = table.autoincrement_column
    if column is None or session.get_bind().dialect.name != "postgresql":
        return  # SQLite goes on after the highest ID by itself
    highest = (await session.execute(select(func.max(column)))).scalar_one()
    if highest is not None:
        advance = text("SELECT setval(pg_get_serial_sequence(:table, :column), :highest)")
        await session.execute(advance, {"table": table.name, "column": column.name, "highest": highest})


def _assets(folder: Path) -> dict[str, Path]:
    """The files that a store gives out, by their paths; half a file that was being added is none."""
    found = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        name = path.relative_to(folder).as_posix()
        if path.name.startswith(".") or (path.is_dir() and not path.is_symlink()):
            continue
        if path.is_symlink() or not path.is_file() or not archive.is_asset(name):
            raise OperatorError(
                f"{path} cannot be carried: it is no plain file with a plain name.",
                hint="Remove it, or add it anew: medperf-server asset add FILE",
            )
        found[name] = path
    return found


def _described(path: Path) -> FilePart:
    with path.open("rb") as file:
        return FilePart(size=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())
